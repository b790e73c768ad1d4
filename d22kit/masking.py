"""Hide personal data in a provider's free text: the one place every text passes before it leaves a frame.

A text becomes safe by a fixed sequence of replacements, run by Polars' regex engine, which is linear in the
text whatever it holds. The replacements, and what stays readable (public hosts, the ordinary words of bounce
texts), are in `masking.toml`. Masking errs on the side of hiding.
"""

from __future__ import annotations

import html
import re
import tomllib
from collections.abc import Callable
from functools import cache, lru_cache, reduce
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import unquote

import polars as pl

from d22kit.errors import InputError

__all__ = ["LIMIT", "mask", "template"]

T = TypeVar("T")

LIMIT = 2_000
"""Characters of a text that are read; hostile ones can be a hundred times longer."""

MARK = "\x01"
"""Stands before what is no name."""

WORD = re.compile(rf"{MARK}?[\w\u0300-\u036f\u0610-\u0670\u0900-\u0eff\u1000-\u109f\u1780-\u17ff]+")
"""A run of letters and digits, and of the marks that combine with them."""

ENDING = 4
"""Letters that may follow the stem of a word."""

UNIT = re.compile(r"^(?:[\d_]+(?:[kmg]i?b?|b|m?s|h|d|x|st|nd|rd|th|min|sec|bytes)?|[a-z])$", re.IGNORECASE)
"""A number, also with its unit, or a single letter."""

ESCAPE = re.compile(
    r"&(?:#\d{1,7}|#x[\da-f]{1,6}|[a-z]{2,8});|(?:%[\da-f]{2})+|(?:\\u[\da-f]{4}|\\x[\da-f]{2})+",
    re.IGNORECASE,
)
"""Characters written as HTML, a link or JSON writes them."""

CUT_PLACEHOLDER = r"<[a-z]{1,5}$"


def mask(text: T) -> T:
    """Hide personal data in a text, a Series of texts or an expression.

    Addresses, phone numbers, names in the places where texts name a person, IP addresses, hosts of small
    organisations, links, ids and long numbers become `<email>`, `<phone>`, `<user>`, `<ip>`, `<host>`,
    `<url>`, `<id>`, `<n>` and `<time>`; any other word that the lists of `masking.toml` do not know becomes
    `<word>`, since it may be a name. Provider codes and the hosts of large public services stay: they are the
    meaning. Lines are joined and only the first 2,000 characters are read. Masking twice changes
    nothing.

    Parameters
    ----------
    text
        `str`, None, a Polars or pandas Series, or a Polars expression of texts. Mask before you group: a call has
        a fixed cost, and an expression under `agg` or `over` is called for every group.

    Returns
    -------
    same kind as `text`
        Null stays null.

    Raises
    ------
    InputError
        Where `text` is of another kind.

    Examples
    --------
    >>> mask("550 5.1.1 <ana.silva@acme.example>: user unknown (host mx1.acme.example[192.0.2.7])")
    '550 5.1.1 <email>: user unknown (host <host>[<ip>])'
    >>> mask(pl.Series(["No such user 'ana'", None])).to_list()
    ["No such user '<user>'", None]
    """
    return cast(T, _apply(text, _masked))


def template(text: T) -> T:
    """Reduce a text to the form it shares with all texts of its kind, so that identical errors group.

    The text is masked and lower-cased; repeated codes of multi-line replies, what only names the step of the
    conversation, quotes and numbers go. Reply codes, enhanced codes and providers' error numbers stay.

    Parameters
    ----------
    text
        As for `mask`.

    Returns
    -------
    same kind as `text`
        At most 200 characters each; null stays null.

    Raises
    ------
    InputError
        Where `text` is of another kind.

    Examples
    --------
    >>> template("552-5.2.2 Mailbox is 104% full\\r\\n552 5.2.2 (in reply to RCPT TO command)")
    '552 5.2.2 mailbox is <n>% full'
    """
    return cast(T, _apply(text, _templates))


def _apply(text: Any, function: Callable[[pl.Series], pl.Series]) -> Any:
    if text is None:
        return None
    if isinstance(text, str):
        return function(pl.Series([text]))[0]
    if isinstance(text, pl.Series):
        return function(text)
    if isinstance(text, pl.Expr):
        # Not as elementwise: it would be called anew, at its fixed cost, for every file that a scan reads.
        return text.map_batches(function, return_dtype=pl.String)
    if type(text).__module__.partition(".")[0] == "pandas":
        values = text.astype(object).where(text.notna(), None).tolist()
        done = function(pl.Series(values, dtype=pl.String, strict=False))
        return type(text)(done.to_list(), index=text.index, name=text.name, dtype=object)
    raise InputError(
        f"A {type(text).__name__} cannot be masked. mask() and template() take a str, None, a Polars or "
        "pandas Series, or a Polars expression."
    )


def _masked(texts: pl.Series) -> pl.Series:
    return _distinctly(texts, _settled)


def _templates(texts: pl.Series) -> pl.Series:
    return _distinctly(texts, lambda distinct: _run(_settled(distinct), _simplified()))


def _distinctly(texts: pl.Series, function: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """Work on every distinct text once; nulls stay."""
    texts = texts.cast(pl.String)
    distinct = texts.drop_nulls().unique()
    if distinct.is_empty():
        return texts
    if len(distinct) == len(texts):
        return function(texts)
    return texts.replace_strict(distinct, function(distinct), default=None, return_dtype=pl.String)


def _settled(texts: pl.Series) -> pl.Series:
    """Replace until nothing changes, so that masking twice changes nothing.

    It ends: every change but the first takes letters or digits away that stand outside a placeholder.
    """
    done = _once(texts)
    moving = (done != texts).arg_true()
    return done.scatter(moving, _distinctly(done.gather(moving), _settled)) if len(moving) else done


def _run(texts: pl.Series, expression: pl.Expr) -> pl.Series:
    return texts.rename("text").to_frame().select(expression).to_series().rename(texts.name)


def _once(texts: pl.Series) -> pl.Series:
    read, named, left = _stages()
    # Without ids and addresses, what was many texts is few.
    return _distinctly(
        _run(_each(ESCAPE, texts, _unescaped), read),
        lambda few: _run(_each(WORD, _run(_each(WORD, few, _mark), named), _hide), left),
    )


@cache
def _stages() -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    text = pl.col("text")
    read = _chain("unescape", text.str.normalize("NFKC")).str.strip_chars()
    short = read.str.head(LIMIT).str.replace(CUT_PLACEHOLDER, "")
    return _chain("keep", _chain("hide", short)), _chain("names", text), _chain("finish", text)


def _each(found: re.Pattern[str], texts: pl.Series, change: Callable[[re.Match[str]], str]) -> pl.Series:
    changed = [None if text is None else found.sub(change, text) for text in texts]
    return pl.Series(texts.name, changed, dtype=pl.String)


def _unescaped(escape: re.Match[str]) -> str:
    """Return what an escape stands for; one that stands for nothing stays."""
    written = escape[0]
    if written[0] == "&":
        return html.unescape(written)
    try:
        if written[0] == "%":
            return unquote(written, errors="strict")
        units = written.encode("ascii").decode("unicode_escape")
        return units.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeError:
        return written


def _mark(word: re.Match[str]) -> str:
    """Mark a word that is ordinary, so that it is not taken for a name."""
    return MARK + word[0] if _is_ordinary(word[0]) else word[0]


def _hide(word: re.Match[str]) -> str:
    """Hide a word that no list knows: of it nobody can say that it is no name."""
    return word[0] if _is_known(word[0]) else f"<{MARK}word>"


@lru_cache(100_000)
def _is_ordinary(word: str) -> bool:
    lists, lowered = _lists(), word.lower()
    if lists.ordinary.issuperset(lowered.split("_")) or lists.joined.fullmatch(word):
        return True
    return lowered.removeprefix("ال") in lists.ordinary or any(
        lowered[:end] in lists.stems for end in range(max(len(lowered) - ENDING, 4), len(lowered))
    )


@lru_cache(100_000)
def _is_known(word: str) -> bool:
    if word.startswith(MARK) or not UNIT.sub("", word) or _is_ordinary(word):
        return True
    return _lists().known.issuperset(word.lower().split("_"))


@cache
def _simplified() -> pl.Expr:
    return _chain("finish", _chain("simplify", pl.col("text").str.to_lowercase())).str.head(200)


def _chain(steps: str, text: pl.Expr) -> pl.Expr:
    for step in _rules()[steps]:
        text = text.str.replace_all(_filled(step["find"]), step["put"])
    return text


def _filled(pattern: str) -> str:
    return reduce(lambda made, part: made.replace(f"@{part[0]}@", part[1]), _parts().items(), pattern)


@cache
def _parts() -> dict[str, str]:
    hosts = sorted(_rules()["hosts"].split(), key=len, reverse=True)
    parts: dict[str, str] = _rules()["parts"]
    return parts | {"hosts": "|".join(hosts).replace(".", r"\.")}


class _Lists(NamedTuple):
    ordinary: frozenset[str]
    known: frozenset[str]
    stems: frozenset[str]
    joined: re.Pattern[str]


@cache
def _lists() -> _Lists:
    words, english, foreign, stems, joined, hosts = (
        _rules()[name].split() for name in ("words", "english", "foreign", "stems", "joined", "hosts")
    )
    labels = ".".join(hosts).split(".")
    runs = "|".join(sorted(map(re.escape, joined), key=len, reverse=True))
    ordinary = frozenset(words + foreign)
    return _Lists(ordinary, ordinary.union(english, labels), frozenset(stems), re.compile(f"(?:{runs})+"))


@cache
def _rules() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
