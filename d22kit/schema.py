"""The row of D22: its columns, their types and meanings. The one place that knows D22's fields."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from d22kit.errors import InputError

__all__ = [
    "COLUMNS",
    "CREATED",
    "DELIVERY",
    "EXTRA",
    "FORMAT",
    "FRAME",
    "KEY",
    "NAMES",
    "PARTITION",
    "STORED",
    "VERSION",
    "VOCABULARY",
    "Column",
    "listed",
]

KEY = "public_id"
VERSION = "updated_at"
CREATED = "created_at"
EXTRA = "extra"
PARTITION = "updated_date"
FORMAT = 1
"""The store's format. A store of a higher one is refused, never guessed at."""

TIME = pl.Datetime("us", "UTC")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a row.

    Parameters
    ----------
    name
        Its name in every frame, file and answer.
    path
        Where the service's JSON has it; nested fields are joined by a dot.
    kind
        `"text"`, `"vocabulary"` (an open set of words) or `"time"` (an instant in UTC).
    meaning
        One sentence for an analyst.
    """

    name: str
    path: str
    kind: str
    meaning: str


COLUMNS: tuple[Column, ...] = (
    Column(KEY, KEY, "text", "Primary key: 24 hex digits, of which the first 8 are the second of creation."),
    Column("platform", "platform", "vocabulary", "Channel the row belongs to, for example EMAIL."),
    Column("purpose", "purpose", "vocabulary", "Why it was sent or received, for example REMINDER."),
    Column("type", "type", "vocabulary", "Direction word, for example OUTBOUND."),
    Column("by", "by", "vocabulary", "Who started it, for example SYSTEM."),
    Column("operation", "operation", "vocabulary", "What the platform did, for example SEND."),
    Column("status", "status", "vocabulary", "State of the platform's own act, for example SENT."),
    Column("visibility", "visibility", "vocabulary", "Who may see it on the platform, for example INTERNAL."),
    Column("delivery_status", "delivery_status.status", "text", "Latest outcome, for example DELIVERED."),
    Column("delivery_code", "delivery_status.code", "text", "Code the provider gave, for example 250."),
    Column(
        "delivery_error_detail",
        "delivery_status.error_detail",
        "text",
        "Free text of the provider; may hold personal data.",
    ),
    Column(CREATED, CREATED, "time", "When the row was created (UTC); may precede a scheduled send."),
    Column(VERSION, VERSION, "time", "When the row last changed (UTC); the newest wins."),
    Column(EXTRA, "", "text", "JSON of every field that no other column declares, or null."),
)

NAMES = tuple(column.name for column in COLUMNS)
VOCABULARY = tuple(column.name for column in COLUMNS if column.kind == "vocabulary")
DELIVERY = tuple(column.name for column in COLUMNS if column.path.startswith("delivery_status."))

STORED = pl.Schema({c.name: TIME if c.kind == "time" else pl.String() for c in COLUMNS})
"""Types of rows on disk, as every engine reads them: vocabularies are open, so their words are plain strings."""

FRAME = pl.Schema({c.name: pl.Categorical() if c.kind == "vocabulary" else STORED[c.name] for c in COLUMNS})
"""Types of rows here, as they are fetched and as `load()` and `scan()` give them. A note of Arrow's in each file lets
Polars and pandas decode the words as categories at once, a third faster than as strings."""


def listed(argument: str, columns: str | Iterable[str]) -> list[str]:
    """Return the columns that an argument names, one or several.

    Raises
    ------
    InputError
        Where it is of another kind.
    """
    if isinstance(columns, str):
        return [columns]
    if not isinstance(columns, Iterable):
        raise InputError(f"{argument} is a {type(columns).__name__}; give names of columns.")
    return list(columns)
