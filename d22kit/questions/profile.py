"""What is in this frame, and how far can its answers be trusted? To be read before any of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl

from d22kit import schema
from d22kit.questions._cube import TIMES, Frame, check_years, collect, give_back, ratio
from d22kit.questions.classify import classify_distinct
from d22kit.questions.roles import SOURCE, RoleMap, Roles, load_roles

__all__ = ["profile"]

WORDS = (*schema.VOCABULARY, "delivery_status")
TEXTS = ("public_id", "delivery_code", "delivery_error_detail")
BLANKS = ("null", "empty", "NONE")
MOST_WORDS = 50
"""Words listed per column; the rest are pooled."""

Finding = dict[str, Any]

PROFILE = {
    "topic": pl.String(),
    "column": pl.String(),
    "value": pl.String(),
    "role": pl.String(),
    "rows": pl.Int64(),
    "share": pl.Float64(),
    "at": pl.Datetime("us", "UTC"),
    "note": pl.String(),
}


def profile(frame: Frame, *, roles: RoleMap | None = None) -> Any:
    """Describe a frame before it is asked anything: its words and their roles, its gaps, its times.

    Parameters
    ----------
    frame
        Rows of D22, as in `volume`, with all of D22's columns but `extra`.
    roles
        More words for the role map, as in `volume`.

    Returns
    -------
    frame of the kind that came; lazy and engine frames give Polars
        One finding a row: `topic`, `column`, `value`, `role`, `rows`, `share` (of all rows, 0–1), `at` (UTC), `note`.
        Topics, in this order:

        - `rows`: how many;
        - `unmapped`: rows whose `type`, `operation` or `by` the role map does not know, per role;
        - `blank`: rows where a column is `null`, `empty` (nothing but spaces) or says `NONE`, told apart;
        - `time`: `first` and `last` of both times, and rows that were `changed before created`;
        - `freshness`: the newest `updated_at`: what the frame does not know lies after it;
        - `word`: each word of the open vocabularies (the 50 most frequent), with its role, or for `delivery_status`
          its state; `note` says where it is unmapped;
        - `warning`: what an answer cannot say, such as engagement where nothing maps to inbound.

    Raises
    ------
    InputError
        Where a column of D22 is missing, or the role map cannot be read.

    Examples
    --------
    >>> from d22kit.simulator.lender import generate
    >>> found = profile(generate(1000, seed=1))
    >>> found.filter(topic="word", column="type").select("value", "role").rows()
    [('OUTBOUND', 'outbound'), ('INBOUND', 'inbound'), ('INTERNAL', None)]
    """
    import narwhals.stable.v2 as nw

    created, updated = nw.col(schema.CREATED), nw.col(schema.VERSION)
    cube = collect(
        frame,
        WORDS,
        step=None,
        latest=False,
        reads=TEXTS,
        derived={f"blank_{name}": _kind_of_blank(name) for name in TEXTS},
        measures={
            "reversed": (updated < created).cast(nw.Int64).sum(),
            **{f"{name}_first": nw.col(name).min() for name in TIMES},
            **{f"{name}_last": nw.col(name).max() for name in TIMES},
            **{f"{name}_null": nw.col(name).is_null().cast(nw.Int64).sum() for name in TIMES},
        },
    )
    listed = {column: _words(cube, column, load_roles(roles)) for column in WORDS}
    found = [
        {"topic": "rows", "rows": cube["rows"].sum()},
        *_unmapped(listed),
        *_blanks(cube, listed),
        *_times(cube),
        *(word for words in listed.values() for word in _most(words)),
        *_warnings(listed),
    ]
    answer = pl.DataFrame(found, schema=PROFILE).with_columns(
        share=ratio(pl.col("rows"), pl.lit(cube["rows"].sum()))
    )
    return give_back(answer, frame, _moment(cube, schema.VERSION, "last"))


def _kind_of_blank(name: str) -> Any:
    """What kind of nothing a text column holds, by its place in `BLANKS`, or null where it holds something."""
    import narwhals.stable.v2 as nw

    whole = nw.col(name).cast(nw.String)
    # Digits and most capitals lie between: no blank begins with one, and to strip them all would cost time.
    text = nw.when((whole < "!") | (whole >= "N")).then(whole).str.strip_chars()
    says_none = nw.when(text.str.to_uppercase() == "NONE").then(nw.lit(BLANKS.index("NONE")))
    empty = nw.when(text == "").then(nw.lit(BLANKS.index("empty"))).otherwise(says_none)
    return nw.when(nw.col(name).is_null()).then(nw.lit(BLANKS.index("null"))).otherwise(empty)


def _words(cube: pl.DataFrame, column: str, roles: Roles) -> list[Finding]:
    """The words of a column, most frequent first, with what they mean."""
    counts = cube.group_by(column).agg(pl.col("rows").sum()).sort("rows", column, descending=[True, False])
    role = next((role for role, source in SOURCE.items() if source == column), None)
    states = _states(cube) if column == "delivery_status" else {}
    return [
        {
            "topic": "word",
            "column": column,
            "value": word,
            "role": roles.of(role, word) if role else states.get(word),
            "rows": rows,
            "note": "unmapped" if role and roles.of(role, word) is None else None,
        }
        for word, rows in counts.iter_rows()
    ]


def _states(cube: pl.DataFrame) -> dict[str | None, str]:
    """What each outcome word means by itself, without a code; platforms may differ."""
    silent = pl.lit(None, pl.String)
    pairs = cube.select("platform", "delivery_status").unique()
    states = classify_distinct(pairs.with_columns(delivery_code=silent, delivery_error_detail=silent))
    meant = states.group_by("delivery_status").agg(pl.col("delivery_state").unique().sort().str.join(" or "))
    return dict(meant.iter_rows())


def _most(words: list[Finding]) -> list[Finding]:
    shown, rest = words[:MOST_WORDS], words[MOST_WORDS:]
    if not rest:
        return shown
    pooled = {"topic": "word", "column": rest[0]["column"], "rows": sum(word["rows"] for word in rest)}
    return [*shown, {**pooled, "note": f"{len(rest)} rarer words"}]


def _unmapped(listed: dict[str, list[Finding]]) -> list[Finding]:
    return [
        {
            "topic": "unmapped",
            "column": column,
            "role": role,
            "rows": sum(word["rows"] for word in listed[column] if word["note"]),
        }
        for role, column in SOURCE.items()
    ]


def _blanks(cube: pl.DataFrame, listed: dict[str, list[Finding]]) -> list[Finding]:
    found: dict[tuple[str, str], Any] = {(column, kind): 0 for column in (*WORDS, *TEXTS) for kind in BLANKS}
    for column, words in listed.items():
        for word in words:
            if (kind := _blank_word(word["value"])) is not None:
                found[column, kind] += word["rows"]
    for column in TEXTS:
        kinds = cube.group_by(f"blank_{column}").agg(pl.col("rows").sum()).drop_nulls()
        found.update({(column, BLANKS[kind]): rows for kind, rows in kinds.iter_rows()})
    for column in TIMES:
        found[column, "null"] = cube[f"{column}_null"].sum()
    return [
        {"topic": "blank", "column": c, "value": kind, "rows": rows}
        for (c, kind), rows in found.items()
        if rows
    ]


def _blank_word(word: str | None) -> str | None:
    if word is None:
        return "null"
    return {"": "empty", "NONE": "NONE"}.get(word.strip().upper())


def _moment(cube: pl.DataFrame, column: str, end: str) -> datetime | None:
    """The first or last of a time; a placeholder of the year 1 or 9999 is shown as well."""
    ends = cube[f"{column}_{end}"]
    check_years(ends, column, *(year.replace(tzinfo=UTC) for year in (datetime.min, datetime.max)))
    values = ends.cast(pl.Datetime("us", "UTC"))
    return values.min() if end == "first" else values.max()  # type: ignore[return-value]


def _times(cube: pl.DataFrame) -> list[Finding]:
    ends = [
        {"topic": "time", "column": c, "value": e, "at": _moment(cube, c, e)}
        for c in TIMES
        for e in ("first", "last")
    ]
    reverse = {"topic": "time", "column": schema.VERSION, "value": "changed before created"}
    return [
        *ends,
        {**reverse, "rows": cube["reversed"].sum()},
        {"topic": "freshness", "column": schema.VERSION, "at": _moment(cube, schema.VERSION, "last")},
    ]


def _warnings(listed: dict[str, list[Finding]]) -> list[Finding]:
    found = []
    if not any(word["role"] == "inbound" for word in listed["type"]):
        found.append(
            ("type", "No word maps to inbound: engagement is null, not 0. Extend the map with roles=.")
        )
    if not any(word["role"] == "outbound" for word in listed["type"]):
        found.append(
            ("type", "No word maps to outbound: nothing counts as attempted. Extend the map with roles=.")
        )
    return [{"topic": "warning", "column": column, "note": note} for column, note in found]
