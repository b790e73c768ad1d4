"""Why did it not arrive, and whose move is it? Causes ranked, and a single case explained."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

from d22kit import schema
from d22kit.errors import InputError
from d22kit.masking import mask, template
from d22kit.questions._cube import Frame, as_of, collect, count, give_back, group_columns, ratio
from d22kit.questions._outcomes import ADDED, OUTCOME, PERMANENCE
from d22kit.questions._rules import categories, matched
from d22kit.questions._stats import wilson
from d22kit.questions._verdicts import SETTLED, with_outcomes
from d22kit.questions.classify import KEYS, Cause, Finding, find, judge
from d22kit.questions.roles import RoleMap, load_roles

__all__ = ["Explanation", "bounces", "explain"]

EXPLAINED = ("bounced", "failed", "suppressed")
"""The states whose causes are ranked. What is still pending is in `backlog`."""

CAUSE = ("state", "category", "permanence")
TEMPLATE = ("platform", "code", "template")
MEASURES = ("cause_share", "per_1000_attempts", "per_1000_attempts_lo", "per_1000_attempts_hi")
COLUMNS = (*CAUSE, "rows", *MEASURES, "first_seen", "last_seen", "action")
LEVELS = ("category", "template")


OUTLOOK = {
    (state, permanence): f"{said}{outlook}"
    for state, said in {
        "bounced": "Bounced",
        "failed": "Failed",
        "pending": "Still pending",
        "suppressed": "Never handed over",
    }.items()
    for permanence, outlook in {
        "hard": ", and the address will not work again",
        "soft": ", but it may work later",
        "block": ", though the address is fine",
    }.items()
}
"""How a sentence of an explanation opens."""

SURE = ("the phrase", "the provider's code", "the enhanced status code", "the status word")
"""Evidence that speaks for itself; other evidence only hints."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What d22kit makes of one code and text, and why. Holds no personal data.

    Parameters
    ----------
    state
        One of the delivery states; `unknown` where nothing tells.
    category, permanence
        The cause, and whether it is `hard`, `soft` or `block`; None where there is nothing to explain.
    evidence
        Which phrase, code or word decided.
    meaning, action
        What that means, and what an analyst should do.
    """

    state: str
    category: str | None
    permanence: str | None
    evidence: str
    meaning: str
    action: str

    def __str__(self) -> str:
        if self.category is None:
            return f"{self.state.capitalize()}: {self.meaning}"
        outlook = OUTLOOK[self.state, self.permanence or "soft"]
        told = f"{outlook} ({self.category}, {self.permanence}): {self.meaning}."
        return " ".join([told, *self._reason(), self.action])

    def _reason(self) -> list[str]:
        if self.category == "unknown":
            return []
        verb = "says" if self.evidence.startswith(SURE) else "suggests"
        return [f"{self.evidence[0].upper()}{self.evidence[1:]} {verb} so."]

    def _repr_html_(self) -> str:
        head = " · ".join(part for part in (self.state, self.category, self.permanence) if part)
        body = "".join(
            f"<br>{html.escape(line)}" for line in (self.meaning, self.evidence, self.action) if line
        )
        return f"<div><b>{html.escape(head)}</b>{body}</div>"


def explain(
    code: str | None, detail: str | None, *, platform: str | None = "EMAIL", status: str | None = None
) -> Explanation:
    """Explain one case: what happened, what says so, what to do.

    Parameters
    ----------
    code
        The provider's code, as `delivery_code` has it: an SMTP reply, an enhanced status, a provider's number.
    detail
        The provider's text.
    platform
        The channel: the same number means different things on different ones.
    status
        The status word; without it the code and text tell the state.

    Returns
    -------
    Explanation
        Its `str` is a sentence.

    Examples
    --------
    >>> told = explain("554", "delivery error: dd This user doesn't have a yahoo.com account")
    >>> told.category, told.permanence, told.evidence
    ('invalid_recipient', 'hard', 'the phrase "user doesnt have a"')
    >>> print(explain("552", "5.2.2 mailbox is over quota"))  # doctest: +ELLIPSIS
    Bounced, but it may work later (mailbox_full, soft): the mailbox or the handset has no room. The phrase ...
    """
    values = (platform, status, None if code is None else str(code), detail)
    case = pl.DataFrame([values], schema=dict.fromkeys(KEYS, pl.String), orient="row")
    verdict = judge(Finding(*find(case).row(0)))
    if verdict.cause is None:
        return Explanation(verdict.state, None, None, "", STATES[verdict.state], "")
    about = categories()[verdict.cause.category]
    return Explanation(
        verdict.state,
        verdict.cause.category,
        verdict.cause.permanence,
        _evidence(verdict.cause, case),
        about.meaning,
        action(verdict.cause.category, verdict.cause.permanence),
    )


def action(category: str, permanence: str) -> str:
    """Say what an analyst should do; where hard evidence is missing, not to drop anybody yet.

    Examples
    --------
    >>> action("mailbox_full", "soft")
    'Retry later; three in a row over weeks: treat it as inactive.'
    >>> action("invalid_recipient", "soft")
    'Do not drop the contact on this alone; wait for a second sign.'
    """
    about = categories()[category]
    doubted = about.permanence == "hard" and permanence == "soft"
    return "Do not drop the contact on this alone; wait for a second sign." if doubted else about.action


STATES = {
    "suppressed": "the sender's own provider never handed it over.",
    "pending": "it is still on its way.",
    "accepted": "the next hop took it; nothing is known of the recipient.",
    "delivered": "it arrived; there is nothing to explain.",
    "read": "it was opened or displayed; there is nothing to explain.",
    "bounced": "the recipient's side refused it.",
    "failed": "it broke on the sender's or provider's side.",
    "unknown": "neither status, code nor text says what became of it.",
}


def _evidence(cause: Cause, case: pl.DataFrame) -> str:
    """Say what decided; of a text only the words that the rule names."""
    named = {
        "number": "the provider's code {}",
        "enhanced": "the enhanced status code {}",
        "reply": "the reply code {} alone",
        "digit": "the first digit of the code, {}",
        "status": "the status word {}",
    }
    if cause.basis in named:
        return named[cause.basis].format(mask(str(cause.evidence)))
    if cause.basis == "nothing":
        return "nothing in the code or text"
    words = matched(case, cause.basis, int(cause.evidence))
    return f'the {"weak word" if cause.basis == "weak" else "phrase"} "{words}"'


def bounces(
    frame: Frame,
    *,
    by: str | Iterable[str] = (),
    level: str = "category",
    k: int = 10,
    roles: RoleMap | None = None,
) -> Any:
    """Rank the causes of messages that did not arrive: why, and whose move is it?

    Parameters
    ----------
    frame, by, roles
        As in `volume`.
    level
        `"category"`: a row per cause. `"template"`: a row per cause and masked text, so that an unknown text of
        a provider is found in a minute.
    k
        Templates of fewer messages are pooled, without their text: a rare text may be a name that masking missed.

    Returns
    -------
    frame of the kind that came; lazy and engine frames give Polars
        The groups, `state` (bounced, failed, suppressed), `category`, `permanence` (hard, soft, block), `rows`,
        `cause_share` (0-1, of the group's rows in that state), `per_1000_attempts` with 95% Wilson limits `_lo`
        and `_hi` (per 1,000 rows attempted by the group; null without any), `first_seen`, `last_seen`
        (`updated_at`, UTC), `action`. At template level also `platform`, `code`, `template` (both masked, null
        where pooled) and `pooled`. Rows of a state sum to the column of that name in `delivery`.

    Raises
    ------
    InputError
        As in `volume`, or where level or k is wrong.

    Examples
    --------
    >>> from datetime import datetime, UTC
    >>> rows = pl.DataFrame({
    ...     "platform": "EMAIL", "type": "OUTBOUND", "operation": "SEND",
    ...     "delivery_status": ["DELIVERED", "BOUNCED", "BOUNCED"], "delivery_code": ["250", "550", "552"],
    ...     "delivery_error_detail": [None, "5.1.1 user unknown", "5.2.2 mailbox full"],
    ...     "created_at": [datetime(2026, 5, 1, tzinfo=UTC)] * 3, "updated_at": [datetime(2026, 5, 2, tzinfo=UTC)] * 3,
    ... })
    >>> bounces(rows).select("category", "permanence", "rows", "cause_share").rows()
    [('invalid_recipient', 'hard', 1, 0.5), ('mailbox_full', 'soft', 1, 0.5)]
    """
    if level not in LEVELS:
        raise InputError(f"level={level!r} is not known. Known: {', '.join(LEVELS)}.")
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise InputError(
            f"k={k!r} is not a number of messages. Give a whole number of at least 1; 10 is usual."
        )
    groups = group_columns(frame, by, (*COLUMNS, *ADDED, "code", "template", "pooled", "attempts"))
    cube = _failures(frame, groups, roles)
    sent = count(_SENT).sum().alias("attempts")
    attempts = cube.group_by(groups).agg(sent) if groups else cube.select(sent)
    failed = cube.filter(pl.col("attempted"), pl.col("state").is_in(EXPLAINED))
    extra = [name for name in TEMPLATE if name not in groups] if level == "template" else []
    if level == "template":
        failed = _pooled(failed, [*groups, *CAUSE, *extra], k)
        extra = [*extra, "pooled"]
    answer = _ranked(failed, groups, extra, attempts)
    return give_back(answer.select(*groups, *COLUMNS, *extra), frame, as_of(cube))


_SENT = pl.col("attempted") & (pl.col("state") != "suppressed")


def _failures(frame: Frame, groups: list[str], roles: RoleMap | None) -> pl.DataFrame:
    """Return the cube of outcomes, with causes, and when each was first recorded."""
    import narwhals.stable.v2 as nw

    first = {"first_seen": nw.col(schema.VERSION).min()}
    keys = [*groups, "type", "operation", *OUTCOME]
    known = load_roles(roles)
    cube = collect(
        frame,
        keys,
        step=None,
        settle=SETTLED,
        measures=first,
        then=lambda cells: with_outcomes(known.add(cells)),
    )
    names = {"delivery_state": "state", "bounce_category": "category", "bounce_permanence": "permanence"}
    return cube.rename(names).with_columns(pl.col("first_seen").cast(pl.Datetime("us", "UTC")))


def _pooled(failed: pl.DataFrame, keys: list[str], k: int) -> pl.DataFrame:
    """Give each row its masked code and template, and take the text away where fewer than k share it."""
    texts = failed.with_columns(
        code=mask(pl.col("delivery_code")), template=template(pl.col("delivery_error_detail").fill_null(""))
    )
    pooled = pl.col("rows").sum().over(keys) < k
    hidden = [pl.when(~pl.col("pooled")).then(pl.col(name)).alias(name) for name in ("code", "template")]
    return texts.with_columns(pooled=pooled).with_columns(hidden)


def _ranked(
    failed: pl.DataFrame, groups: list[str], extra: list[str], attempts: pl.DataFrame
) -> pl.DataFrame:
    rows = failed.group_by(*groups, *CAUSE, *extra).agg(
        pl.col("rows").sum(), pl.col("first_seen").min(), last_seen=pl.col("latest").max()
    )
    counted = (
        rows.join(attempts, on=groups, how="left", nulls_equal=True)
        if groups
        else rows.join(attempts, how="cross")
    )
    lo, hi = wilson(pl.col("rows"), pl.col("attempts"))
    actions = {f"{name} {how}": action(name, how) for name in categories() for how in PERMANENCE}
    told = counted.with_columns(
        cause_share=pl.col("rows") / pl.col("rows").sum().over([*groups, "state"]),
        per_1000_attempts=1000 * ratio(pl.col("rows"), pl.col("attempts")),
        per_1000_attempts_lo=1000 * lo,
        per_1000_attempts_hi=1000 * hi,
        action=pl.concat_str("category", "permanence", separator=" ").replace_strict(
            actions, return_dtype=pl.String
        ),
    )
    order = [*groups, "state", "rows", "category", *extra]
    return told.sort(order, descending=[name == "rows" for name in order], nulls_last=True)
