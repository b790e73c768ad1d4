"""Roles: which open words mean inbound, an attempt to send, or an automated start."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl

from d22kit.errors import InputError

__all__ = ["SOURCE", "RoleMap", "Roles", "fold", "load_roles"]

SOURCE = {"direction": "type", "attempt": "operation", "initiator": "by"}
"""The column that each role is read from."""

WORDS = {
    "direction": ("outbound", "inbound"),
    "attempt": ("yes", "no"),
    "initiator": ("automated", "person", "customer"),
}

RoleMap = Mapping[str, Mapping[str, Iterable[str]]] | str | os.PathLike[str]
"""What `roles=` takes: `{"direction": {"inbound": ["MO"]}}`, or the path of a TOML file of that form."""


def fold(word: Any) -> str:
    """Return a word as the map compares it: lower case, no spaces, hyphens or underscores.

    Examples
    --------
    >>> fold("Out-Bound ")
    'outbound'
    >>> fold(None)
    ''
    """
    return "" if word is None else "".join(c for c in str(word).lower() if c not in "-_" and not c.isspace())


@dataclass(frozen=True)
class Roles:
    """The map in force: for each role, folded words and what they mean."""

    direction: Mapping[str, str]
    attempt: Mapping[str, str]
    initiator: Mapping[str, str]

    def of(self, role: str, word: Any) -> str | None:
        """Return what a word means in a role, or None where it is unmapped."""
        meanings: Mapping[str, str] = getattr(self, role)
        return meanings.get(fold(word))

    def add(self, cells: pl.LazyFrame) -> pl.LazyFrame:
        """Add `direction`, `attempted` and `initiator` to a cube, as far as it has the columns they need.

        Unmapped is null everywhere. `attempted` is true for an outbound row whose operation sends, false for
        an inbound row or an operation that does not send, and null where that cannot be decided.
        """
        held = cells.collect_schema()
        given = {role: column for role, column in SOURCE.items() if column in held}
        words = cells.select(pl.col(column).unique().implode() for column in set(given.values())).collect()
        roles = [self._read(column, words[column].item(), role) for role, column in given.items()]
        cells = cells.with_columns(roles)
        if "attempt" not in given or "direction" not in given:
            return cells.drop("attempt", strict=False)
        outbound, sends = pl.col("direction") == "outbound", pl.col("attempt") == "yes"
        return cells.with_columns(attempted=outbound & sends).drop("attempt")

    def _read(self, column: str, words: pl.Series, role: str) -> pl.Expr:
        meaning = {word: self.of(role, word) for word in words}
        return pl.col(column).replace_strict(meaning, return_dtype=pl.Enum(WORDS[role])).alias(role)


def load_roles(roles: RoleMap | None = None) -> Roles:
    """Return the shipped map, extended by `D22KIT_ROLES` and then by `roles`.

    Raises
    ------
    InputError
        Where the file cannot be read, or a role or meaning is not known.
    """
    merged = {role: dict(meanings) for role, meanings in _shipped().items()}
    named = os.environ.get("D22KIT_ROLES")
    for source, name in ((named, "D22KIT_ROLES"), (roles, "roles")):
        if source:
            for role, meanings in _folded(_table(source, name), name).items():
                merged[role].update(meanings)
    return Roles(**merged)


@cache
def _shipped() -> dict[str, dict[str, str]]:
    text = files("d22kit.questions").joinpath("roles.toml").read_text(encoding="utf-8")
    return _folded(tomllib.loads(text), "roles.toml")


def _table(source: RoleMap, name: str) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        return source
    try:
        return tomllib.loads(Path(source).expanduser().read_text(encoding="utf-8"))
    except TypeError:
        raise InputError(
            f"{name} is a {type(source).__name__}; give a mapping or the path of a TOML file."
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"{name}={os.fspath(source)!r} cannot be read as a TOML role map: {error}."
        ) from None


def _folded(table: Mapping[str, Any], name: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for role, meanings in table.items():
        _known(role, WORDS, f"{name} has a role {role!r}")
        if not isinstance(meanings, Mapping):
            raise InputError(f"{name}: {role} must hold {', '.join(WORDS[role])}, each with a list of words.")
        for meaning, words in meanings.items():
            _known(meaning, WORDS[role], f"{name}: {role} has {meaning!r}")
            if not isinstance(words, Iterable):
                raise InputError(f"{name}: {role}.{meaning} is {words!r}; give a list of words.")
            for word in [words] if isinstance(words, str) else words:
                before = found.setdefault(role, {}).setdefault(fold(word), meaning)
                if before != meaning:
                    raise InputError(
                        f"{name}: {role} maps {word!r} to both {before} and {meaning}. Keep one."
                    )
    return found


def _known(word: Any, known: Iterable[str], what: str) -> None:
    if word not in known:
        raise InputError(f"{what}, which is not known. Known here: {', '.join(known)}.")
