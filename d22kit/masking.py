"""Hide personal data in a provider's free text: the one place every text passes before it leaves a frame.

A text becomes safe by a fixed sequence of replacements, run by Polars' regex engine, which is linear in the
text whatever it holds. The replacements, and what stays readable (public hosts, the ordinary words of bounce
texts), are in `masking.toml`. Masking errs on the side of hiding.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from functools import cache, reduce
from pathlib import Path
from typing import Any, TypeVar, cast

import polars as pl

from d22kit.errors import InputError

__all__ = ["LIMIT", "mask", "template"]

T = TypeVar("T")

LIMIT = 2_000
"""Characters of a text that are read; hostile ones can be a hundred times longer."""

CUT_PLACEHOLDER = r"<[a-z]{1,5}$"


def mask(text: T) -> T:
    """Hide personal data in a text, a Series of texts or an expression.

    Addresses, phone numbers, names in the places where texts name a person, IP addresses, hosts of small
    organisations, links, ids and long numbers become `<email>`, `<phone>`, `<user>`, `<ip>`, `<host>`,
    `<url>`, `<id>`, `<n>` and `<time>`. Provider codes and the hosts of large public services stay: they
    are the meaning. Lines are joined and only the first 2,000 characters are read. Masking twice changes
    nothing.

    Parameters
    ----------
    text
        `str`, None, a Polars or pandas Series, or a Polars expression of texts.

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
        return text.map_batches(function, return_dtype=pl.String, is_elementwise=True)
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
    if len(distinct) == len(texts):
        return function(texts)
    return texts.replace_strict(distinct, function(distinct), default=None, return_dtype=pl.String)


def _settled(texts: pl.Series) -> pl.Series:
    """Replace until nothing changes, so that masking twice changes nothing.

    It ends: every change but the first takes letters or digits away that stand outside a placeholder.
    """
    done = _run(texts, _once())
    moving = (done != texts).arg_true()
    return done.scatter(moving, _settled(done.gather(moving))) if len(moving) else done


def _run(texts: pl.Series, expression: pl.Expr) -> pl.Series:
    return texts.rename("text").to_frame().select(expression).to_series().rename(texts.name)


@cache
def _once() -> pl.Expr:
    read = _chain("unescape", pl.col("text").str.normalize("NFKC")).str.strip_chars()
    short = read.str.head(LIMIT).str.replace(CUT_PLACEHOLDER, "")
    return reduce(lambda text, steps: _chain(steps, text), ("hide", "keep", "names", "finish"), short)


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
    lists = {name: _rules()[name].split() for name in ("hosts", "words")}
    longest_first = {name: sorted(words, key=len, reverse=True) for name, words in lists.items()}
    parts: dict[str, str] = _rules()["parts"]
    return parts | {name: "|".join(words).replace(".", r"\.") for name, words in longest_first.items()}


@cache
def _rules() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
