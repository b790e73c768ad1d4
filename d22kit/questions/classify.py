"""Delivery states and bounce causes, from the words, codes and texts of any provider.

What words, codes and phrases mean is in `rules.toml`; here is only the order in which they are asked. Texts are
read in Polars, once per distinct (platform, status, code, text); what was found in them is then judged in plain
Python, once per distinct finding, of which there are few.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import polars as pl

from d22kit.questions._attach import attach
from d22kit.questions._engines import Frame
from d22kit.questions._rules import (
    Phrase,
    categories,
    enhanced,
    normal,
    number,
    phrases,
    plain,
    rules,
    squeezed,
    word_table,
)

__all__ = [
    "CATEGORIES",
    "KEYS",
    "RESULT",
    "STATES",
    "Finding",
    "Verdict",
    "classify_distinct",
    "find",
    "judge",
]

STATES = ("suppressed", "pending", "accepted", "delivered", "read", "bounced", "failed", "unknown")
CATEGORIES = tuple(categories())
KEYS = ("platform", "delivery_status", "delivery_code", "delivery_error_detail")
RESULT = ("delivery_state", "bounce_category", "bounce_permanence")

LIMIT = 4_000
"""Characters of a text that are read, once its blanks are squeezed."""

BLOCK = 16
"""How many phrases are asked at a time, side by side: one by one, most of the time would go into compiling them."""

EXPLAINED = ("bounced", "failed", "suppressed", "pending")
NO_WORD = ("", "none", "null", "na", "nan", "unknown")
NOT_CODES = (
    r"\d+(?:\.\d+){3,}|\b\d{2,}\.\d+(?:\.\d+)*|\b(?:exim|sendmail|postfix|version|v)[ /]?\d[\d.]*"
    r"|\b\d+ ?(?:bytes|kb|mb|messages|recipients|connections|seconds|minutes|hours|days)\b"
)
ENHANCED = r"\b[245]\.[0-7]\.\d{1,3}\b"
REPLY = r"\b[245]\d\d\b"
NUMBER = r"\b(?:[A-Z]{2,}(?:_[A-Z0-9]+)+|ER-\d\d|\d{4,6})\b"


class Finding(NamedTuple):
    """What was found in a case: its kind of platform, plain status word, codes, and the first phrases that fit."""

    kind: str
    word: str
    code: str
    enhanced: str
    replies: str
    numbers: str
    phrase: int | None
    weak: int | None
    told: bool


class Cause(NamedTuple):
    """A category, its permanence, and what it rests on: `basis` (phrase, number, ..) and `evidence`."""

    category: str
    permanence: str
    basis: str
    evidence: str | int
    """A code or word; of a phrase, the index of its rule."""


class Verdict(NamedTuple):
    """The judgement of a case; `cause` is None where there is nothing to explain."""

    state: str
    cause: Cause | None


def classify(frame: Frame) -> Any:
    """Say of every row what became of it and, where it did not arrive, why.

    Parameters
    ----------
    frame
        Rows of D22: Polars (eager or lazy), pandas, PyArrow, a DuckDB relation or a PySpark DataFrame.

    Returns
    -------
    frame of the same kind, engines and lazy frames included
        All rows and columns in their order, and three of text:

        - `delivery_state`: suppressed, pending, accepted, delivered, read, bounced, failed or unknown;
        - `bounce_category`: one of 13 causes or `unknown`; null where there is nothing to explain;
        - `bounce_permanence`: `hard` (the address never works again), `soft` (it may work later) or `block` (the
          address is fine, something on the sender's side must change).

        A lazy or engine frame is read once for its distinct outcomes; the rows themselves stay lazy.

    Raises
    ------
    InputError
        Where the frame is none, or lacks one of the four columns an outcome is read from.

    Notes
    -----
    RFC 3463, RFC 5321 and the vendors' documentation, as `rules.toml` names them.

    Examples
    --------
    >>> rows = pl.DataFrame({
    ...     "platform": ["EMAIL", "SMS"], "delivery_status": ["BOUNCED", "DELIVERED"],
    ...     "delivery_code": ["552", None], "delivery_error_detail": ["5.2.2 mailbox full", None],
    ... })
    >>> classify(rows).select(RESULT).rows()
    [('bounced', 'mailbox_full', 'soft'), ('delivered', None, None)]
    """
    return attach(frame, KEYS, RESULT, classify_distinct)


def classify_distinct(distinct: pl.DataFrame) -> pl.DataFrame:
    """Add state, category and permanence to a frame of distinct cases.

    Parameters
    ----------
    distinct
        A frame with the columns of `KEYS`; others are kept.

    Returns
    -------
    DataFrame
        The same rows in the same order with `delivery_state`, `bounce_category` and `bounce_permanence` as
        strings; the latter two are null where there is nothing to explain.

    Examples
    --------
    >>> case = {"platform": "EMAIL", "delivery_status": "BOUNCED", "delivery_code": "550"}
    >>> frame = pl.DataFrame([case | {"delivery_error_detail": "5.1.1 <a@b.example>: user unknown"}])
    >>> classify_distinct(frame).select(RESULT).row(0)
    ('bounced', 'invalid_recipient', 'hard')
    """
    found = find(distinct)
    kinds = found.unique()
    verdicts = [_row(judge(Finding(*row))) for row in kinds.iter_rows()]
    schema = dict.fromkeys(RESULT, pl.String)
    judged = pl.concat([kinds, pl.DataFrame(verdicts, schema, orient="row")], how="horizontal")
    told = found.join(judged, on=found.columns, how="left", nulls_equal=True, maintain_order="left")
    return distinct.with_columns(told.select(RESULT))


def _row(verdict: Verdict) -> tuple[str, str | None, str | None]:
    cause = verdict.cause
    return (verdict.state, cause.category, cause.permanence) if cause else (verdict.state, None, None)


# ------------------------------------------------------------------------------------------------ reading


def find(cases: pl.DataFrame) -> pl.DataFrame:
    """Return a frame of `Finding`s, one per row of `cases`."""
    read = cases.lazy().select(_read()).with_columns(_codes()).with_columns(_class()).collect()
    fitted = read.with_columns(phrase=_first_fits(read, "phrase"), weak=_first_fits(read, "weak"))
    return fitted.select(Finding._fields)


def _read() -> list[pl.Expr]:
    platform, status, code, detail = (pl.col(key).cast(pl.String).fill_null("") for key in KEYS)
    code = code.str.strip_chars().str.replace(r"^(\d+)\.0$", "${1}")
    text = squeezed(detail).str.strip_chars().str.head(LIMIT)
    worded = pl.when(code.str.contains(r"\p{L}")).then(" . " + code).otherwise(pl.lit(""))
    return [
        _kind(plain(platform)).alias("kind"),
        plain(status).alias("word"),
        code.str.to_lowercase().alias("code"),
        text.alias("detail"),
        normal(text + worded).alias("text"),
        (text != "").alias("told"),
    ]


def _kind(platform: pl.Expr) -> pl.Expr:
    kinds = rules()["kinds"].items()
    fits = [pl.when(platform.str.contains_any(words.split())).then(pl.lit(kind)) for kind, words in kinds]
    return pl.coalesce(*fits, pl.lit("other"))


def _codes() -> list[pl.Expr]:
    """Find all codes, also those inside the text. SMTP's are read for e-mail, providers' for messaging only."""
    everything = (
        (pl.col("detail") + " | " + pl.col("code")).str.to_lowercase().str.replace_all(NOT_CODES, " ")
    )
    replies = everything.str.replace_all(ENHANCED, " ").str.extract_all(REPLY)
    known = [reply for reply in rules()["reply"] if reply.isdigit()]
    code, detail = pl.col("code").str.to_uppercase(), pl.col("detail").str.to_uppercase()
    numbers = pl.concat_list(code, detail.str.extract_all(NUMBER))
    email, messaging = pl.col("kind") == "email", pl.col("kind").is_in(["sms", "whatsapp"])
    return [
        _joined(everything.str.extract_all(ENHANCED), email).alias("enhanced"),
        _joined(replies.list.filter(pl.element().is_in([*known, "250"])), email).alias("replies"),
        _joined(numbers, messaging).alias("numbers"),
    ]


def _joined(codes: pl.Expr, where: pl.Expr) -> pl.Expr:
    return pl.when(where).then(codes.list.unique(maintain_order=True).list.join(" ")).otherwise(pl.lit(""))


def _class() -> pl.Expr:
    """The class digit of the codes: 4 where any is temporary, else 5 where any is permanent; empty without one."""
    codes = pl.col("enhanced") + " " + pl.col("replies")
    digits = [pl.when(codes.str.contains(rf"(?:^| ){digit}")).then(pl.lit(digit)) for digit in "45"]
    return pl.coalesce(*digits, pl.lit("")).alias("class")


def _first_fits(read: pl.DataFrame, section: str) -> pl.Series:
    """Return the index of the first rule that fits each text; a text that fits one of a block is not asked again."""
    waiting = read.select("text", "class", "enhanced", "kind", row=pl.int_range(pl.len()))
    waiting = waiting.filter(pl.col("text").str.strip_chars() != "")
    first = pl.repeat(None, read.height, dtype=pl.Int32, eager=True)
    asked = [pl.when(_fits(rule)).then(pl.lit(index)) for index, rule in enumerate(phrases(section))]
    for start in range(0, len(asked), BLOCK):
        if waiting.is_empty():
            break
        told = waiting.select("row", first=pl.coalesce(asked[start : start + BLOCK]))
        fits = told["first"].is_not_null()
        first = first.scatter(told.filter(fits)["row"], told.filter(fits)["first"])
        waiting = waiting.filter(~fits)
    return first


def _fits(rule: Phrase) -> pl.Expr:
    fits = pl.col("text").str.contains(rule.pattern)
    if rule.digit:
        same = pl.col("class") == rule.digit[-1]
        fits &= ~same if rule.digit.startswith("not ") else same
    if rule.codes:
        fits &= pl.col("enhanced").str.contains(_any_code(rule.codes))
    if rule.kinds:
        fits &= pl.col("kind").is_in(rule.kinds)
    return fits


def _any_code(codes: tuple[str, ...]) -> str:
    return "|".join(rf"(?:^| ){code.replace('.', '[.]').replace('x', '[45]')}(?: |$)" for code in codes)


# ------------------------------------------------------------------------------------------------ judging


def judge(found: Finding) -> Verdict:
    """Judge one finding: its state, and the strongest cause where there is something to explain."""
    cause = next(_causes(found), Cause("unknown", "soft", "nothing", ""))
    state = _state(found, cause)
    deferral = found.told or bool(found.code and not found.code.startswith("2"))
    return Verdict(state, cause if state in EXPLAINED and (state != "pending" or deferral) else None)


def _causes(found: Finding) -> Iterator[Cause]:
    """Yield every cause that something speaks for, the strongest first."""
    numbers = [(code, rule) for code in found.numbers.split() if (rule := number(code, found.kind))]
    codes = [(code, rule) for code in found.enhanced.split() if (rule := enhanced(code))]
    strong = [(code, rule) for code, rule in codes if not rule.get("weak")]
    for code, rule in numbers:
        if not rule.get("weak"):
            yield Cause(rule["category"], _sure(rule["category"]), "number", code)
    if found.phrase is not None:
        fit = phrases("phrase")[found.phrase]
        yield Cause(fit.category, fit.permanence or _said(fit.category, found), "phrase", found.phrase)
    for code, rule in strong:
        yield Cause(
            rule["category"], rule.get("permanence") or _coded(rule["category"], found), "enhanced", code
        )
    for code, rule in numbers:
        yield Cause(rule["category"], _sure(rule["category"]), "number", code)
    if found.weak is not None:
        category = phrases("weak")[found.weak].category
        yield Cause(category, _doubted(category, found), "weak", found.weak)
    for code, rule in codes:
        yield Cause(rule["category"], _doubted(rule["category"], found), "enhanced", code)
    yield from _by_reply(found)
    named = word_table("status_cause").get(found.word)
    if named:
        yield Cause(named, "hard" if named == "opted_out" else _doubted(named, found), "status", found.word)


def _by_reply(found: Finding) -> Iterator[Cause]:
    table = rules()["reply"]
    for reply in found.replies.split():
        category = table.get(reply, "unknown")
        if category != "unknown":
            sure = reply in table["hard"].split()
            yield Cause(category, _sure(category) if sure else _doubted(category, found), "reply", reply)
    if _digit(found) == "4":
        yield Cause("temporary_failure", "soft", "digit", "4")


def _digit(found: Finding) -> str:
    """The class digit of a case: 4 where any code is temporary, since then it is not final."""
    own = found.code if found.kind == "email" and re.fullmatch(r"[245]\d\d", found.code) else ""
    digits = {code[0] for code in f"{found.enhanced} {found.replies} {own}".split()}
    return min(digits & {"4", "5"}, default=min(digits, default=""))


def _sure(category: str) -> str:
    return categories()[category].permanence


def _said(category: str, found: Finding) -> str:
    """Permanence by a phrase: a temporary code softens all but what speaks of the address for good."""
    lasting = category in ("invalid_recipient", "opted_out")
    return _sure(category) if lasting or _digit(found) != "4" else "soft"


def _coded(category: str, found: Finding) -> str:
    return "soft" if _digit(found) == "4" else _sure(category)


def _doubted(category: str, found: Finding) -> str:
    """Permanence without positive evidence: never hard."""
    permanence = _coded(category, found)
    return "soft" if permanence == "hard" else permanence


def _state(found: Finding, cause: Cause) -> str:
    state = word_table("states").get(found.word) or _state_by_code(found, cause)
    if state in ("bounced", "failed"):
        return _overruled(found, cause) or state
    return state


def _state_by_code(found: Finding, cause: Cause) -> str:
    """The state where the word is missing or unknown; an unknown word is never read as a success."""
    missing = found.word in NO_WORD
    by_digit = {"2": "delivered" if missing else "unknown", "4": "pending", "5": "bounced"}
    state = by_digit.get(_digit(found))
    if state or not missing or cause.basis in ("nothing", "weak"):
        return state or "unknown"
    return "failed" if cause.category in ("sender_error", "unknown") else "bounced"


def _overruled(found: Finding, cause: Cause) -> str | None:
    """What a number or phrase makes of a failure: refused by the recipient, or never handed over."""
    if cause.basis == "phrase":
        return phrases("phrase")[int(cause.evidence)].state
    for rule in rules()["state_by_code"]:
        if (
            found.kind in rule["kinds"]
            and found.word in rule["words"].split()
            and cause.evidence in rule["codes"].split()
        ):
            return str(rule["state"])
    return None
