"""The providers' paths laid out as arrays, and the words of every state that a path passes through."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import accumulate

import numpy as np
import polars as pl
from numpy.typing import NDArray

from d22kit.schema import DELIVERY, FRAME
from d22kit.simulator.providers import BLOCKLISTED, CANCELLED, OUTAGE, PLATFORMS, Path, Step
from d22kit.simulator.rhythm import Floats, Ints
from d22kit.simulator.scenario import INCIDENTS

__all__ = ["STEPS", "Book", "book"]

STEPS = 3
VARIANTS = 48
TURNED = {"cancelled_campaign": CANCELLED, "provider_outage": OUTAGE, "blocklisting": BLOCKLISTED}
ANSWERED = (Path(1, (Step("", after=0.4),)),)
NOTED = (Path(1, ()),)
FIRST = ["omar", "fatima", "ravi", "leila", "john", "maria", "yusuf", "priya", "ahmed", "sara"]
LAST = ["haddad", "khan", "nair", "santos", "aziz", "smith", "farouk", "iyer", "mansour", "cruz"]
DOMAINS = ["falconmail.example", "northbank.example", "mail.oasis.test", "palmpost.example"]
NETS = ["192.0.2", "198.51.100", "203.0.113"]
STATUS = {"QUEUED": "QUEUED", "ACCEPTED": "QUEUED", "FAILED": "FAILED"}
STATUS |= {"SUPPRESSED": "CANCELLED", "CANCELED": "CANCELLED", "": "RECEIVED", "NOTED": "SAVED"}
NO_OUTCOME = ("", "NOTED")


@dataclass(frozen=True, slots=True)
class Book:
    """Every path laid out as arrays, and the words of each state that a path passes through."""

    paths: dict[str, Ints]
    platform: Ints
    shares: dict[str, Floats]
    after: Floats
    spread: Floats
    count: Ints
    trouble: NDArray[np.bool_]
    delivers: Ints
    state: Ints
    words: pl.DataFrame
    texts: pl.Series
    text_base: Ints
    text_count: Ints


@cache
def book() -> Book:
    """Lay out the paths of platforms, incidents, answers and notes, under those names."""
    groups = [(p.name, p.name, p.paths) for p in PLATFORMS]
    groups += [(incident.name, incident.platform, TURNED[incident.name]) for incident in INCIDENTS]
    groups += [("answer", p.name, ANSWERED) for p in PLATFORMS]
    groups += [("note", p.name, NOTED) for p in PLATFORMS]
    labels = [label for label, _, group in groups for _ in group]
    names = [name for _, name, group in groups for _ in group]
    paths = [path for *_, group in groups for path in group]
    lives = [[_created(name, path), *path.steps] for name, path in zip(names, paths, strict=True)]
    states = [(name, step) for name, life in zip(names, lives, strict=True) for step in life]
    texts, base, count = _texts([step.text for _, step in states])
    at = {label: np.flatnonzero(np.array(labels) == label) for label in labels}
    weight = np.array([path.weight for path in paths])
    order = [p.name for p in PLATFORMS]
    return Book(
        paths=at,
        platform=np.array([order.index(name) for name in names]),
        shares={label: weight[ids] / weight[ids].sum() for label, ids in at.items()},
        after=np.array([_padded([step.after for step in path.steps]) for path in paths]),
        spread=np.array([_padded([step.spread for step in path.steps]) for path in paths]),
        count=np.array([len(path.steps) for path in paths]),
        trouble=np.array([path.trouble for path in paths]),
        delivers=np.array([path.delivered_at for path in paths]),
        state=np.array([0, *accumulate(len(life) for life in lives)][:-1]),
        words=_words(states),
        texts=texts,
        text_base=base,
        text_count=count,
    )


def _created(platform: str, path: Path) -> Step:
    """The state of a row before its first step."""
    if path in ANSWERED + NOTED:
        return Step("NOTED" if path in NOTED else "")
    return Step("accepted" if platform == "WHATSAPP" else "QUEUED")


def _padded(values: list[float]) -> list[float]:
    return [*values, *[0.0] * (STEPS - len(values))]


def _words(states: list[tuple[str, Step]]) -> pl.DataFrame:
    rows = [
        (name, STATUS.get(s.word.upper(), "SENT"), None if s.word in NO_OUTCOME else s.word, s.code)
        for name, s in states
    ]
    schema = {name: FRAME[name] for name in ("platform", "status", *DELIVERY[:2])}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _texts(templates: list[str | None]) -> tuple[pl.Series, Ints, Ints]:
    """Fill each text with made-up addresses, in as many variants as it has slots for."""
    rng = np.random.default_rng(22)
    pool: list[str | None] = []
    base, count = [], []
    for template in templates:
        variants = 1 if template is None or "{" not in template else VARIANTS
        base.append(len(pool))
        count.append(variants)
        pool += [template and template.format(**_made_up(rng)) for _ in range(variants)]
    return pl.Series(DELIVERY[2], pool, dtype=pl.String), np.array(base), np.array(count)


def _made_up(rng: np.random.Generator) -> dict[str, str]:
    first, last, domain, net = (str(rng.choice(words)) for words in (FIRST, LAST, DOMAINS, NETS))
    ip = f"{net}.{rng.integers(1, 255)}"
    return {
        "user": f"{first}.{last}",
        "email": f"{first}.{last}{rng.integers(1, 99)}@{domain}",
        "domain": domain,
        "host": f"mx{rng.integers(1, 9)}.{domain}",
        "ip": ip,
        "url": f"https://lookup.{domain}/query?ip={ip}",
        "phone": f"+9715000{rng.integers(10_000, 99_999)}",
        "id": rng.bytes(9).hex(),
    }
