"""How far the figures can be trusted: how fresh and how complete the data is, in plain words."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from d22kit.questions.profile import profile
from d22kit.schema import VERSION
from d22kit.snapshots import StoreStatus, versions

__all__ = ["Trust", "trust"]

ROLES = {
    "direction": "inbound or outbound",
    "attempt": "an attempt to send or not",
    "initiator": "sent by whom",
}


@dataclass(frozen=True, slots=True)
class Trust:
    """The version spoken of, facts as label and value, and what to mind, a sentence each."""

    version: int

    facts: list[tuple[str, str]]
    warnings: list[str]


def trust(frame: pl.DataFrame, store: StoreStatus, data: str | os.PathLike[str] | None, zone: str) -> Trust:
    """Return what the page says of its data."""
    history = versions(data).filter(pl.col("version") <= store.version)
    synced = history.filter(pl.col("act") == "sync")["committed_at"].max()
    newest = frame[VERSION].max()
    facts = [
        ("newest change in these rows", _moment(newest, zone)),
        ("complete up to", _moment(store.watermark, zone, "not yet: the first sync is not done")),
        ("last sync that stored anything", _moment(synced, zone)),
        ("last audit against the service", store.last_audit(_moment(store.audited, zone))),
        ("version of the store", str(store.version)),
        ("rows in the store", f"{store.rows:,}"),
        ("rows in this report", f"{frame.height:,}"),
        ("rows set apart, since they could not be stored", f"{store.quarantined:,}"),
        ("parts of a sync still to do", f"{store.unfinished:,}"),
    ]
    return Trust(store.version, facts, [*_of_store(store), *_of_words(frame)])


def _of_store(store: StoreStatus) -> list[str]:
    said = []
    if store.unfinished or store.watermark is None:
        said.append("A sync is not done, so rows are missing. Run d22kit sync, then write this page again.")
    if store.quarantined:
        said.append("Some rows could not be stored and are in no figure: see d22kit quarantine.")
    return said


def _of_words(frame: pl.DataFrame) -> list[str]:
    """Say which share of the rows has words that the role map does not know."""
    if frame.is_empty():
        return []
    found = profile(frame)
    unmapped = found.filter(pl.col("topic") == "unmapped", pl.col("rows") > 0)
    rows = [_unmapped(row) for row in unmapped.iter_rows(named=True)]
    return [*rows, *found.filter(pl.col("topic") == "warning")["note"].to_list()]


def _unmapped(row: dict[str, Any]) -> str:
    return (
        f"Of {row['rows']:,} rows ({row['share']:.1%}) the role map cannot tell {ROLES[row['role']]}, by their "
        f"{row['column']}: they are counted apart, never guessed."
    )


def _moment(value: Any, zone: str, otherwise: str = "–") -> str:
    if not isinstance(value, datetime):
        return otherwise
    local = value.astimezone(ZoneInfo(zone))
    return f"{local.day} {local:%b %Y, %H:%M} ({zone})"
