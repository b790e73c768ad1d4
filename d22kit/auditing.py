"""Compare the store with the service's own totals, window by window, and repair what differs."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

import polars as pl

from d22kit.commits import commit_rows, gathered, remove_keys
from d22kit.config import Endpoint
from d22kit.display import Facts, number
from d22kit.endpoint import Service
from d22kit.errors import InputError, StoreError
from d22kit.frames import Parsed, newest, parse, together
from d22kit.pages import walk
from d22kit.schema import FRAME, KEY, VERSION
from d22kit.snapshots import LAST_AUDIT
from d22kit.state import NEVER
from d22kit.store import Store
from d22kit.syncing import AHEAD, COMMIT_ROWS
from d22kit.times import TimeLike, iso, span
from d22kit.totals import Bounds, Compared, Holdings, Totals, window
from d22kit.windows import Interval, Window, add, missing

__all__ = ["AuditReport", "audit"]

log = logging.getLogger("d22kit")

WORKERS = 4
PART_ROWS = 1_000_000
"""Stored rows whose keys are held in memory at once."""
LATE = timedelta(minutes=10)
"""How late the service may commit a change."""
SHOWN = 10
"""Differences that a report prints; all are in its field."""

Repair = Literal["missing", "all"]


@dataclass(frozen=True, repr=False)
class AuditReport(Facts):
    """What an audit found, and what it repaired.

    Parameters
    ----------
    data, service
        The store, and the service root and lender.
    equal
        Whether the store equals the service now, as far as was looked.
    since, until
        The range of `updated_at` that was compared (UTC); until is the store's watermark at most.
    windows, requests
        Windows compared, and requests sent.
    at_service, in_store, quarantined
        Rows compared: by the service's totals, in the store, and set apart.
    changed
        Stored rows that changed at the service since the last sync; left out, since the next one fetches them.
    missing, surplus
        Rows that the store lacked, and had without the service having them, by the numbers.
    fetched
        Rows that the repair stored: missing ones, and newer versions.
    gone, removed
        Rows that a walk did not meet any more, and how many of these were removed.
    differences
        The windows that differed before the repair.
    seconds
        Wall-clock time.
    unfinished
        Windows that an interrupted sync left: what it has not fetched yet was not compared.
    """

    data: str
    service: str
    equal: bool
    since: datetime
    until: datetime
    windows: int
    requests: int
    at_service: int
    in_store: int
    quarantined: int
    changed: int
    missing: int
    surplus: int
    fetched: int
    gone: int
    removed: int
    differences: tuple[Compared, ...]
    seconds: float
    unfinished: int = 0

    title = "Audit"

    def facts(self) -> Iterator[tuple[str, str]]:
        """Give the report line by line."""
        yield "store", self.data
        yield "service", self.service
        yield "updated_at", f"{iso(self.since)} to {iso(self.until)}"
        yield "windows", f"{number(self.windows)} in {number(self.requests)} requests"
        yield "rows at the service", number(self.at_service)
        yield "rows in the store", number(self.in_store)
        yield "  set apart", number(self.quarantined)
        yield "  changed since", number(self.changed)
        yield "missing", number(self.missing)
        yield "surplus", number(self.surplus)
        yield "fetched", number(self.fetched)
        yield "removed", number(self.removed)
        for each in self.differences[:SHOWN]:
            yield f"  {iso(each.since)} to {iso(each.until)}", str(each)
        yield "result", "equal" if self.equal else "not equal"

    def advice(self) -> Iterator[str]:
        """Say what to look at, if anything."""
        if self.unfinished:
            yield "A sync was interrupted, and what it has not fetched was not compared: run 'd22kit sync' first."
        if (more := len(self.differences) - SHOWN) > 0:
            yield f"{number(more)} more windows differed: see the report's differences."
        if self.gone > self.removed:
            yield (
                f"{number(self.gone)} stored rows were not met at the service, and are kept. repair='all' removes "
                "such rows where they are no more than max_deletes: raise it if so many were deleted on purpose."
            )
        elif not self.equal:
            yield "repair='missing' fetches what is missing; repair='all' also removes what the service deleted."


def audit(
    endpoint: Endpoint | None = None,
    data: str | os.PathLike[str] | None = None,
    *,
    since: TimeLike | None = None,
    until: TimeLike | None = None,
    repair: Repair | None = None,
    max_deletes: int = 1000,
) -> AuditReport:
    """Compare the store with the service's totals, day by day of `updated_at`, and repair what differs.

    Only what the store has covered is compared, up to its watermark: sync first. A day that the service cannot
    count is halved until it can. Rows that changed since the last sync are left to the next one. A day with as
    many rows missing as surplus looks equal by its total, and rows set apart may hide as many surplus ones.

    Parameters
    ----------
    endpoint
        The service; None reads the environment, see `Endpoint.from_env`.
    data
        The store's directory or URL; None is `$D22KIT_DATA`, else `data` in the working directory.
    since, until
        Bounds of `updated_at`, half-open, to compare no more than these.
    repair
        None only compares. `"missing"` walks the windows that differ again, and stores what is missing or
        newer. `"all"` also removes rows that the service no longer has, in a version of their own, the latest
        past the watermark too. To be sure that none of them only moved on, it walks the whole range again as
        soon as any window differs.
    max_deletes
        Where more rows than this are gone, none is removed, and the report says so.

    Raises
    ------
    ConfigError, InputError
        Where an argument is missing or wrong, or nothing of the range is covered by the store yet.
    ProtocolError
        Where the service gives no totals at all.
    EndpointError, StoreError
        As in `sync`; what was repaired before is kept.

    Examples
    --------
    >>> import d22kit, tempfile
    >>> with d22kit.simulate(rows=500) as service, tempfile.TemporaryDirectory() as data:
    ...     _ = d22kit.sync(service.endpoint, data, progress=False)
    ...     report = d22kit.audit(service.endpoint, data)
    >>> report.equal, report.missing, report.surplus
    (True, 0, 0)
    """
    begun = time.monotonic()
    bounds = span(since, until)
    if repair not in (None, "missing", "all"):
        raise InputError(f"repair={repair!r} is unknown; give None, 'missing' or 'all'.")
    if max_deletes < 0:
        raise InputError(f"max_deletes={max_deletes} is negative; give 0 or more.")
    endpoint = endpoint or Endpoint.from_env()
    store, cancelled = Store.open(data), threading.Event()
    with Service(endpoint, notify=lambda text: log.warning("%s", text), cancelled=cancelled) as service:
        store.check_owner(f"{endpoint.root} lender {service.lender_id}")
        if repair is None:
            run = _Audit(store, service, cancelled)
            run.compare(*bounds)
        else:
            with store.writing():
                run = _Audit(Store.open(data), service, cancelled)
                run.compare(*bounds)
                run.repair(everything=repair == "all", until=bounds[1], max_deletes=max_deletes)
        report = run.report(time.monotonic() - begun)
        if bounds == (None, None) and not report.unfinished:
            _remember(store, report, service.now())
        return report


def _remember(store: Store, report: AuditReport, when: datetime) -> None:
    """Note when the whole store was last compared, and what came of it; a place that takes no note is no fault."""
    try:
        store.note(LAST_AUDIT, {"at": iso(when), "equal": report.equal})
    except StoreError as error:
        log.warning("The audit is done, but not noted in the store: %s", error)


@dataclass
class _Audit:
    """One audit under way: windows compared, stored rows of walked ones that were not met, older ones that were."""

    store: Store
    service: Service
    cancelled: threading.Event
    compared: list[Compared] = field(default_factory=list)
    walked: tuple[Interval, ...] = ()
    gone: pl.DataFrame = field(default_factory=lambda: FRAME.to_frame().select(KEY, VERSION))
    older: pl.DataFrame = field(default_factory=FRAME.to_frame)
    fetched: int = 0
    removed: int = 0

    def __post_init__(self) -> None:
        self.state = self.store.state()
        self.held = Holdings(self.store)

    def compare(self, since: datetime | None, until: datetime | None) -> None:
        """Compare every window; look a second time where it differs, since rows may have changed meanwhile."""
        windows = self.held.windows(self.state.covered, since, until)
        if not windows:
            raise InputError(
                f"The store at {self.store.root} has covered nothing of that range of updated_at yet, so there is "
                "nothing to compare. Sync first, or widen since and until."
            )
        totals = Totals(self.service, self._met, self.cancelled)
        self.held.changed = self._changed()
        self.compared = totals.compare(windows, self.held)
        if differing := [w for w in self.compared if w.differs]:
            self.held.changed = self._changed()
            again = totals.compare([(w.since, w.until) for w in differing], self.held)
            equal = [w for w in self.compared if not w.differs]
            self.compared = sorted(equal + again, key=lambda w: w.since)

    def repair(self, *, everything: bool, until: datetime | None, max_deletes: int) -> None:
        """Walk windows again and store what is missing; remove what is gone, where asked to."""
        begun = self.service.now()
        if everything:
            # Past the watermark no total is compared: what was not met there when looking for changes may be gone.
            end = self.compared[-1].until
            self.gone = self.held.rows(end, max(end, until or NEVER)).collect()
        if doubtful := [w for w in self.compared if w.differs or (everything and w.unclear)]:
            for part in _parts(self.compared if everything else doubtful):
                self._walk_again(part)
        if everything and self.gone.height:
            self._find_moved(begun)
        if everything and 0 < self.gone.height <= max_deletes:
            self.removed = remove_keys(self.store, self.gone[KEY], self.state).removed
            self._store(Parsed(self.older.join(self.gone, on=KEY, how="semi", maintain_order="left")))

    def _walk_again(self, part: Sequence[Compared]) -> None:
        bounds = [(w.since, w.until) for w in part]
        # One by one: Polars would open the files of all windows at once.
        self.gone = pl.concat([self.gone, *(self.held.rows(*b).collect() for b in bounds)])
        for batch in self._batches([window(b, i) for i, b in enumerate(bounds)], WORKERS):
            self._keep(batch)
        for b in bounds:
            self.walked = add(self.walked, b)

    def _find_moved(self, begun: datetime) -> None:
        """Meet the rows that moved on: to where nothing was walked, or during the walk."""
        first = self.gone[VERSION].min()
        assert isinstance(first, datetime)
        gaps = missing(self.walked, (first, NEVER))
        rest = [self._window((a or first, b), i) for i, (a, b) in enumerate(gaps)]
        for plan, workers in ((rest, WORKERS), ([self._window((begun - LATE, NEVER))], 1)):
            for batch in self._batches(plan, workers):
                self._keep(Parsed(batch.frame.join(self.gone, on=KEY, how="semi", maintain_order="left")))

    def _keep(self, batch: Parsed) -> None:
        met = batch.frame.join(self.gone.rename({VERSION: "held"}), on=KEY, maintain_order="left")
        older = pl.col(VERSION) < pl.col("held")
        self.gone = self.gone.join(met.filter(~older), on=KEY, how="anti")
        # Where the service lost the newer of two rows of a key, the older takes its place once that is removed.
        self.older = pl.concat([self.older, met.filter(older).drop("held")])
        self._store(batch)

    def _store(self, batch: Parsed) -> None:
        counts = commit_rows(self.store, batch.frame, batch.quarantined, self.state, act="audit")
        self.fetched += counts.new + counts.updated

    def _changed(self) -> pl.Series:
        """Return the keys of all rows that changed after what the store covers."""
        start = self.state.claim or self.state.covered[-1][1]
        keys = [page.frame[KEY] for page in self._pages([self._window((start, NEVER))], workers=1)]
        return pl.concat(keys).unique() if keys else self.gone[KEY]

    def _window(self, bounds: Bounds, id: int = 0) -> Window:
        """Return a window; one without an end is over where no row can be, or a narrowed walk would go on for ages."""
        last = max(self.service.now() + AHEAD, self.held.end)
        return window(bounds, id) if bounds[1] < NEVER else replace(window(bounds, id), stop=last)

    def _met(self, bounds: Bounds) -> int:
        pages = self._pages([window(bounds)], workers=1)
        return sum(page.frame.height + len(page.quarantined) for page in pages)

    def _batches(self, plan: Sequence[Window], workers: int) -> Iterator[Parsed]:
        pages = self._pages(plan, workers)
        return map(together, gathered(pages, lambda page: page.frame.height, COMMIT_ROWS))

    def _pages(self, plan: Sequence[Window], workers: int) -> Iterator[Parsed]:
        for step in walk(self.service, plan, workers=workers, newest=newest, cancelled=self.cancelled):
            if step.rows is not None:
                yield parse([(step.rows, step.request_id)])

    def report(self, seconds: float) -> AuditReport:
        """Return what was found and done."""
        differences = [w for w in self.compared if w.differs]
        gone = self.gone.height
        since, until = self.compared[0].since, self.compared[-1].until
        return AuditReport(
            data=self.store.root,
            service=self.store.owner,
            equal=gone == self.removed if self.walked or gone else not differences,
            since=since,
            until=until,
            windows=len(self.compared),
            requests=self.service.stats.requests,
            at_service=sum(w.at_service for w in self.compared),
            in_store=sum(w.in_store for w in self.compared),
            quarantined=sum(w.quarantined for w in self.compared),
            changed=self.held.count_changed(since, until),
            missing=sum(w.missing for w in differences),
            surplus=sum(w.surplus for w in differences),
            fetched=self.fetched,
            gone=gone,
            removed=self.removed,
            differences=tuple(differences),
            seconds=seconds,
            unfinished=len(self.state.windows),
        )


def _parts(windows: Sequence[Compared]) -> Iterator[list[Compared]]:
    """Give windows in groups whose keys fit in memory."""
    part: list[Compared] = []
    for each in windows:
        part.append(each)
        if sum(w.in_store for w in part) >= PART_ROWS:
            yield part
            part = []
    if part:
        yield part
