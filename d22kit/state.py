"""How far a store is, and what each of its commits did: kept in the commits themselves."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from d22kit.times import instant, iso
from d22kit.windows import EPOCH, Interval, Window

__all__ = ["NEVER", "Counts", "State", "describe", "metadata"]

NEVER = datetime(9999, 12, 31, tzinfo=UTC)
"""A time that no row has."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a commit, or all commits of a sync, did to rows."""

    fetched: int = 0
    new: int = 0
    updated: int = 0
    unchanged: int = 0
    outdated: int = 0
    removed: int = 0
    quarantined: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))


@dataclass(frozen=True, slots=True)
class State:
    """How far the store is: kept in the commit of the rows it speaks of.

    Parameters
    ----------
    covered
        Intervals of `updated_at` that were walked to their end and may be built upon.
    windows
        Windows begun and not done, with the cursors to go on from.
    claim
        How far those windows may count as covered once done; later rows may still be committed late.
    floor
        The earliest `updated_at` ever asked for: None is the beginning, `NEVER` that nothing was asked for yet.
    staged
        Number of the last staging file whose pages this commit holds.
    """

    covered: tuple[Interval, ...] = ()
    windows: tuple[Window, ...] = ()
    claim: datetime | None = None
    floor: datetime | None = NEVER
    staged: int = 0

    @property
    def watermark(self) -> datetime | None:
        """Up to where nothing is missing from the floor on, or None where the first rows are still to come."""
        start, end = self.covered[0] if self.covered else (NEVER, EPOCH)
        from_floor = start is None or (self.floor is not None and start <= self.floor)
        return end if from_floor and end > EPOCH else None

    def same_as(self, other: State) -> bool:
        """Whether both say the same of the rows; which staging files were used up does not matter."""
        return replace(self, staged=0) == replace(other, staged=0)

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return {
            "covered": [[since and iso(since), iso(until)] for since, until in self.covered],
            "windows": [window.to_json() for window in self.windows],
            "claim": self.claim and iso(self.claim),
            "floor": self.floor and iso(self.floor),
            "staged": self.staged,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> State:
        """Return the state that `to_json` wrote."""
        return cls(
            covered=tuple((instant(since), _instant(until)) for since, until in value["covered"]),
            windows=tuple(Window.from_json(window) for window in value["windows"]),
            claim=instant(value["claim"]),
            floor=instant(value["floor"]),
            staged=value["staged"],
        )


def _instant(text: str) -> datetime:
    moment = instant(text)
    assert moment is not None
    return moment


def metadata(state: State, counts: Counts, act: str) -> dict[str, Any]:
    """Return what a commit of the table says of itself."""
    return {"d22kit": json.dumps({"act": act, "state": state.to_json(), "counts": asdict(counts)})}


def describe(commit: dict[str, Any]) -> tuple[str | None, dict[str, int], State | None]:
    """Return the act, counts and state of a commit of the table's history; nothing for another writer's."""
    if "d22kit" not in commit:
        return None, {}, None
    about = json.loads(commit["d22kit"])
    return about["act"], about["counts"], State.from_json(about["state"])
