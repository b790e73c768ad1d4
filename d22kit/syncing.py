"""Fetch what is missing into the store: plan, walk, stage, commit, until nothing is left to walk."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import reduce
from itertools import count

import polars as pl

from d22kit.commits import commit_rows
from d22kit.config import Endpoint, store_root
from d22kit.display import Facts, number
from d22kit.endpoint import Service
from d22kit.errors import D22kitError, InputError, StoreError, StoreNotFoundError
from d22kit.frames import Parsed, newest, parse
from d22kit.pages import GENTLE_PAGES, Step, walk
from d22kit.progress import Progress
from d22kit.staging import Batch, Staging
from d22kit.state import NEVER, Counts, State
from d22kit.store import Store
from d22kit.times import TimeLike, iso, span
from d22kit.windows import Window, add, missing

__all__ = ["SyncReport", "sync"]

log = logging.getLogger("d22kit")

COMMIT_ROWS = 80_000
"""Rows in a commit: enough for large files, few enough to hold in memory."""
IDLE_ROWS = 40_000
"""Rows in a commit when the service lets one wait: then little is left to do at the end."""
STAGE_PAGES, STAGE_BYTES = 8, 8 << 20
"""Pages put on disk together, or fewer when they are large or the service lets one wait: what a kill may cost."""
AHEAD = timedelta(minutes=5)
"""How far past the server's now an open end is taken to lie; what is found beyond it gets another pass."""
FOREVER = NEVER
"""An open end as the service is asked for it, so that a walk also meets what is written during it."""
MOST_PASSES = 5
OVERLAP = timedelta(minutes=1)
"""How far a further pass reaches back before the one it follows."""


@dataclass(frozen=True, repr=False)
class SyncReport(Facts):
    """What a sync did.

    Parameters
    ----------
    data
        The store.
    service
        Service root and lender.
    version
        The version the store has now.
    versions
        How many versions this sync made.
    fetched, new, updated, unchanged, outdated, quarantined
        Rows: received; stored for the first time; stored in place of an older one; already stored to the
        letter; older than the stored one or met twice; set apart because they cannot be stored.
    pages, requests, retries
        Pages read, requests sent, and how many of these repeated a failed one.
    unknown_fields
        Fields the schema does not know; their values are in the column `extra`.
    watermark
        Up to here (UTC, `updated_at`) the store is complete from its floor on, without a hole.
    seconds
        Wall-clock time.
    """

    data: str
    service: str
    version: int
    versions: int
    fetched: int
    new: int
    updated: int
    unchanged: int
    outdated: int
    quarantined: int
    pages: int
    requests: int
    retries: int
    unknown_fields: tuple[str, ...]
    watermark: datetime | None
    seconds: float

    title = "Sync"

    def facts(self) -> Iterator[tuple[str, str]]:
        """Give the report line by line."""
        yield "store", self.data
        yield "service", self.service
        yield "rows fetched", number(self.fetched)
        yield "  new", number(self.new)
        yield "  updated", number(self.updated)
        yield "  unchanged", number(self.unchanged + self.outdated)
        yield "  quarantined", number(self.quarantined)
        yield (
            "pages",
            f"{number(self.pages)} in {number(self.requests)} requests, {number(self.retries)} retries",
        )
        yield "version", f"{self.version} ({number(self.versions)} made)"
        yield "complete up to", iso(self.watermark) if self.watermark else "not yet complete"
        yield "seconds", f"{self.seconds:.1f}"

    def advice(self) -> Iterator[str]:
        """Say what to look at, if anything."""
        if self.quarantined:
            yield f"{number(self.quarantined)} rows could not be stored: see d22kit.quarantine()."
        if self.unknown_fields:
            yield f"New fields, kept in the column extra: {', '.join(self.unknown_fields)}."


def sync(
    endpoint: Endpoint | None = None,
    data: str | os.PathLike[str] | None = None,
    *,
    since: TimeLike | None = None,
    until: TimeLike | None = None,
    workers: int = 4,
    lookback: timedelta = timedelta(minutes=10),
    progress: bool | None = None,
) -> SyncReport:
    """Bring the store up to the service: a backfill the first time, what changed since then afterwards.

    A sync that is interrupted or killed goes on from where it was. Rows are kept once, each in its newest
    version.

    Parameters
    ----------
    endpoint
        The service; None reads the environment, see `Endpoint.from_env`.
    data
        The store's directory or URL; None is `$D22KIT_DATA`, else `data` in the working directory.
    since, until
        Bounds of `updated_at`, half-open, to fetch no more than these. `since` sets the store's floor, or
        moves it back; a later bare sync leaves no hole.
    workers
        Windows walked at once, at most: as many as it takes to keep up with the service.
    lookback
        How late the service may commit a change; this much before its own present is fetched again next time.
    progress
        A progress bar: None where there is a terminal or a notebook, else True or False.

    Raises
    ------
    ConfigError, InputError
        Where an argument is missing or wrong; nothing on disk is changed.
    EndpointError
        Where the service refuses or fails; what was fetched before is kept, and its kind says what to do.
    StoreError
        Where the store cannot be written, is in use, or belongs to another lender.

    Examples
    --------
    >>> import d22kit, tempfile
    >>> with d22kit.simulate(rows=2_000) as service, tempfile.TemporaryDirectory() as data:
    ...     report = d22kit.sync(service.endpoint, data, progress=False)
    >>> report.new
    2000
    """
    begun = time.monotonic()
    bounds = span(since, until)
    if workers < 1:
        raise InputError(f"workers={workers}; give 1 (a plain walk) or more, 4 is usual.")
    if lookback < timedelta(0):
        raise InputError(
            f"lookback={lookback} is negative; give a timedelta of 0 or more, 10 minutes is usual."
        )
    endpoint = endpoint or Endpoint.from_env()
    root = store_root(data)
    store = None
    with suppress(StoreNotFoundError):
        store = Store.open(root)
    cancelled = threading.Event()
    with Progress(progress) as bar, Service(endpoint, notify=bar.notice, cancelled=cancelled) as service:
        owner = f"{endpoint.root} lender {service.lender_id}"
        if store is not None:
            store.check_owner(owner)
        service.now()  # A service that cannot be reached leaves no empty store behind.
        store = store or Store.create(root, owner)
        with store.writing():
            store = Store.open(root)
            before = store.table.version()
            run = _Run(store, service, bar, cancelled, workers, lookback)
            with run.committer:
                run.to_the_end(*bounds)
        return SyncReport(
            data=root,
            service=owner,
            version=store.table.version(),
            versions=store.table.version() - before,
            fetched=run.counts.fetched,
            new=run.counts.new,
            updated=run.counts.updated,
            unchanged=run.counts.unchanged,
            outdated=run.counts.outdated,
            quarantined=run.counts.quarantined,
            pages=run.pages,
            requests=service.stats.requests,
            retries=service.stats.retries,
            unknown_fields=tuple(sorted(run.unknown)),
            watermark=run.state.watermark,
            seconds=time.monotonic() - begun,
        )


@dataclass
class _Run:
    """One sync under way: what waits to be staged, what is staged and waits to be committed."""

    store: Store
    service: Service
    bar: Progress
    cancelled: threading.Event
    workers: int
    lookback: timedelta
    counts: Counts = field(default_factory=Counts)
    pages: int = 0
    unknown: set[str] = field(default_factory=set)
    fresh: list[Step] = field(default_factory=list)
    planned: dict[int, Window] = field(default_factory=dict)
    staged: list[Batch] = field(default_factory=list)
    beyond: bool = False
    interrupted: bool = False
    committer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    committing: Future[Counts] | None = None

    def __post_init__(self) -> None:
        self.state = self.store.state()
        self.staging = Staging(self.store, self.state.staged)
        self.staged = self.staging.left_over()

    def to_the_end(self, since: datetime | None, until: datetime | None) -> None:
        """Walk passes until one met everything: a row that changed during a walk is met by the next."""
        self._commit()
        self._settle()
        self.interrupted = bool(self.state.windows)
        start, workers = since, self.workers
        for _ in range(MOST_PASSES):
            began = self.service.now() - min(self.lookback, OVERLAP)
            plan = self._plan(start, until)
            if not plan or self._walk(plan, workers):
                return
            # A lone worker goes in order, so no row moves past it. Where the pass was short, what lies before
            # it is left to the next sync, whose lookback fetches it anyway.
            brief = self.service.now() - began < self.lookback
            start, workers = began if brief else since, 1

    def _plan(self, since: datetime | None, until: datetime | None) -> list[Window]:
        """Return the windows left by a killed sync, else new ones for what is not covered."""
        now = self.service.now()
        end = min(until or FOREVER, FOREVER if self.beyond else now + AHEAD)
        start = since or (None if self.state.floor == NEVER else self.state.floor)
        if left := [w for w in self.state.windows if _overlap(w, start, end)]:
            return left
        ids = count(1 + max((w.id for w in self.state.windows), default=0))
        gaps = missing(self.state.covered, (start, end))
        asked = {end: until or FOREVER}
        plan = [Window(next(ids), since=a, until=asked.get(b, b), stop=b) for a, b in gaps]
        # The server's clock counts whole seconds, and a change may be committed late.
        claim = now - timedelta(seconds=1) - self.lookback
        if self.state.windows and self.state.claim is not None:
            claim = min(claim, self.state.claim)
        floor = None if start is None or self.state.floor is None else min(start, self.state.floor)
        self.state = State(self.state.covered, (*self.state.windows, *plan), claim, floor, self.state.staged)
        return plan

    def _walk(self, plan: list[Window], workers: int) -> bool:
        """Walk windows and keep their rows; return whether no row can have moved past the walk."""
        whole = len(plan) == 1 and plan[0].cursor is None
        self.beyond = False
        self.planned = {window.id: window for window in plan}
        self.bar.plan(plan, workers)
        with self._kept_whatever_happens():
            steps = walk(
                self.service,
                plan,
                workers=workers,
                newest=newest,
                cancelled=self.cancelled,
                idle=self._put_away,
                gently=self.interrupted,
            )
            for step in steps:
                whole = whole and (workers == 1 or len(step.windows) == 1)
                self.beyond |= any(w.until == FOREVER and _passed(w) for w in step.windows)
                self.fresh.append(step)
                if self._is_enough():
                    self._stage()
                self._commit(at_least=COMMIT_ROWS)
        return whole and not self.beyond

    @contextmanager
    def _kept_whatever_happens(self) -> Iterator[None]:
        """Commit what was fetched, also when the walk fails or is interrupted."""
        try:
            yield
        except (KeyboardInterrupt, D22kitError) as error:
            self.cancelled.set()
            if not isinstance(error, StoreError):  # which left its rows in the staging files
                self._stage()
                self._commit()
                self._settle()
            error.add_note(
                f"{number(self.counts.new + self.counts.updated)} rows of this sync are kept in {self.store.root}; "
                "the same sync goes on from there."
            )
            raise
        self._stage()
        self._commit()
        self._settle()

    def _is_enough(self) -> bool:
        """Tell whether the pages at hand are to be staged."""
        if self.planned:  # By its first page a plan is durable, and the next sync knows of a kill.
            return True
        # What killed the last sync may come again.
        pages = 1 + self.pages // GENTLE_PAGES if self.interrupted else STAGE_PAGES
        size = sum(len(step.rows or b"") for step in self.fresh)
        return len(self.fresh) >= min(pages, STAGE_PAGES) or size >= STAGE_BYTES

    def _stage(self) -> None:
        """Make the pages at hand durable."""
        if not self.fresh:
            return
        pages = [(step.rows, step.request_id) for step in self.fresh if step.rows is not None]
        moved = {window.id: window for step in self.fresh for window in step.windows}
        parsed = parse(pages)
        # The first batch of a plan carries all of it: a kill may come before the first commit.
        windows = tuple((self.planned | moved).values())
        batch = Batch(parsed.frame, tuple(parsed.quarantined), windows, self.state.claim, self.state.floor)
        self.staged.append(self.staging.put(batch))
        self.fresh, self.planned = [], {}
        self._tell(len(pages), parsed, moved.values())

    def _tell(self, pages: int, parsed: Parsed, moved: Iterable[Window]) -> None:
        self.pages += pages
        for name in sorted(parsed.unknown - self.unknown):
            log.warning("The service sends a new field, %s; its values are kept in the column extra.", name)
        self.unknown |= parsed.unknown
        self.bar.pages(parsed.frame.height, moved, self.service.stats.retries)

    def _put_away(self) -> None:
        self._stage()
        self._commit(at_least=IDLE_ROWS)

    def _commit(self, at_least: int = 0) -> None:
        """Make what is staged one version, if it is so many rows, while the walk goes on; one at a time."""
        if sum(batch.height + len(batch.quarantined) for batch in self.staged) < at_least:
            return
        self._settle()
        if self.staged:
            self.state = reduce(_after, self.staged, self.state)
            under_way = self.committer.submit(self._make_version, self.staged, self.state)
            # In one, or a Ctrl-C between them would have it committed twice.
            self.committing, self.staged = under_way, []

    def _settle(self) -> None:
        """Wait for the version under way."""
        if self.committing is not None:
            self.counts += self.committing.result()
            self.committing = None
            self.staging.clear(self.state.staged)

    def _make_version(self, batches: list[Batch], state: State) -> Counts:
        rows = pl.concat([self.staging.rows(batch) for batch in batches])
        quarantined = [row for batch in batches for row in batch.quarantined]
        with suppress(KeyboardInterrupt):  # a Ctrl-C also ends what Polars does in this thread
            return commit_rows(self.store, rows, quarantined, state)
        return commit_rows(self.store, rows, quarantined, state)


def _after(state: State, batch: Batch) -> State:
    """Return the state once a batch's pages are in the table."""
    windows = {window.id: window for window in (*state.windows, *batch.windows)}
    covered = state.covered
    for window in batch.windows:
        if window.done and batch.claim is not None:
            covered = add(covered, (window.since, min(window.stop, batch.claim)))
    left = tuple(window for window in windows.values() if not window.done)
    return State(covered, left, batch.claim, batch.floor, batch.number)


def _passed(window: Window) -> bool:
    return window.position is not None and window.position >= window.stop


def _overlap(window: Window, start: datetime | None, end: datetime) -> bool:
    before_end = window.since is None or window.since < end
    return before_end and (start is None or window.stop > start)
