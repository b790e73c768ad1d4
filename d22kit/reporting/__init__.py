"""One page for those who would rather look than read: self-contained, offline, the same for the same data."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl

from d22kit.errors import InputError
from d22kit.loading import load
from d22kit.questions.calendar import Calendar, Clock
from d22kit.reporting.figures import headline
from d22kit.reporting.page import created_range, render
from d22kit.reporting.sections import sections
from d22kit.reporting.trust import trust
from d22kit.reporting.unusual import Unusual, watch
from d22kit.schema import CREATED, FRAME
from d22kit.snapshots import status
from d22kit.times import TimeLike

__all__ = ["report"]

COLUMNS = [name for name in FRAME.names() if name != "extra"]
MONTHS, WEEKS = 100, 30
"""Days of data from which figures speak of months, and of weeks."""
DAILY, WEEKLY = 70, 1100
"""Days of data up to which lines have a point a day, and a week."""


def report(
    path: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    tz: str = "UTC",
    since: TimeLike | None = None,
    until: TimeLike | None = None,
    calendar: Calendar | None = None,
) -> Path:
    """Write the answers and their charts as one HTML page that needs no network to be read.

    It holds the last whole period against the one before, what was unusual in words, a chart and a table per
    answer, what stopped messages and what to do, and how fresh and complete the data is. It holds counts only: no
    row, no text of a message. The same version of a store gives the same page.

    Parameters
    ----------
    path
        The page's file; one that is there is replaced, and only by a whole one.
    data
        The store's directory or URL; None is `$D22KIT_DATA`, else `data` in the working directory.
    tz
        The zone that days, weeks and months are cut in.
    since, until
        Keep rows created in `[since, until)`; without an offset they are UTC.
    calendar
        In place of `tz`; its holidays are not taken for anomalies.

    Returns
    -------
    pathlib.Path
        The page, absolute.

    Raises
    ------
    StoreNotFoundError, StoreFormatError
        Where there is no such store.
    InputError
        Where the page cannot be written there, or the zone or range is wrong.
    ConfigError
        Where `vl-convert-python`, which carries Vega, is not installed.

    Examples
    --------
    >>> import d22kit, tempfile
    >>> with d22kit.simulate(rows=500) as service, tempfile.TemporaryDirectory() as data:
    ...     _ = d22kit.sync(service.endpoint, data, progress=False)
    ...     page = d22kit.report(f"{data}/report.html", data, tz="Asia/Dubai")
    ...     page.read_text(encoding="utf-8").startswith("<!doctype html>")
    True
    """
    target = _target(path)
    zone = Clock.of("day", tz, calendar).zone
    store = status(data)
    frame = load(data, since=since, until=until, version=store.version, columns=COLUMNS)
    ask = {"tz": zone, "calendar": calendar}
    days = _days(frame)
    page = render(
        owner=store.owner,
        zone=zone,
        range=created_range(frame, zone),
        headline=headline(frame, "month" if days >= MONTHS else "week" if days >= WEEKS else "day", ask),
        **_answers(frame, days, ask),
        trust=trust(frame, store, data, zone),
    )
    _write(target, page)
    return target


def _answers(frame: pl.DataFrame, days: int, ask: dict[str, Any]) -> dict[str, Any]:
    if frame.is_empty():
        return {"unusual": Unusual([], {}), "sections": []}
    every = "day" if days <= DAILY else "week" if days <= WEEKLY else "month"
    unusual = watch(frame, ask)
    return {"unusual": unusual, "sections": sections(frame, every, unusual, ask)}


def _days(frame: pl.DataFrame) -> int:
    days: int | None = frame.select((pl.col(CREATED).max() - pl.col(CREATED).min()).dt.total_days()).item()
    return days or 0


def _target(path: str | os.PathLike[str]) -> Path:
    """Refuse a place that cannot hold the page before anything is read."""
    if "://" in os.fspath(path):
        raise InputError(
            f"path={os.fspath(path)!r} is a URL. Write the page to a local file, then upload it."
        )
    target = Path(path).expanduser().absolute()
    if target.is_dir():
        raise InputError(f"{target} is a directory. Name a file in it, such as {target / 'report.html'}.")
    if not target.parent.is_dir():
        raise InputError(
            f"There is no directory {target.parent}. Make it, or name another place for the page."
        )
    return target


def _write(target: Path, page: str) -> None:
    """Put the whole page in its place at once."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_text(page, encoding="utf-8", newline="\n")
        part.replace(target)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise InputError(
            f"The page cannot be written to {target}: {error.strerror or error}. Check the directory's "
            "permissions and the free space, or name another place."
        ) from error
