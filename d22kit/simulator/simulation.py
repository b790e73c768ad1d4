"""A running simulator: the synthetic lender behind the service's contract, and time that goes on."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from d22kit.config import Endpoint
from d22kit.errors import InputError
from d22kit.schema import FRAME, KEY, VERSION
from d22kit.simulator.drawing import foreign
from d22kit.simulator.index import index
from d22kit.simulator.lender import history, later
from d22kit.simulator.rhythm import expected
from d22kit.simulator.scenario import NOW
from d22kit.simulator.server import EMAIL, LENDER, PASSWORD, Hook, Server, Service

__all__ = ["Simulation", "Tick", "serve", "simulate"]

LATE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Tick:
    """What happened while time went on, in rows; `late` ones carry an `updated_at` from before it."""

    inserted: int
    updated: int
    late: int
    deleted: int


class Simulation:
    """A running simulator, as `simulate` gives it.

    Parameters
    ----------
    rows, seed, incidents
        As in `simulate`.
    others
        Rows of other lenders that the service scans and leaves out.
    """

    endpoint: Endpoint
    """What `d22kit.sync` and the others take."""

    def __init__(
        self, rows: int | pl.DataFrame, seed: int, *, incidents: bool, others: int, **options: Any
    ) -> None:
        self._seed, self._ticks = seed, 0
        drawn = 0 if isinstance(rows, pl.DataFrame) else rows
        self._frame, self._coming = history(drawn, seed, incidents=incidents)
        if isinstance(rows, pl.DataFrame):
            self._frame = rows.select(FRAME.names()).cast(FRAME).sort(KEY)
        self._rows, self._others = len(self._frame), foreign(seed, others)
        self.service = Service(index(self._frame, self._others), _clock(self._frame), **options)

    @property
    def now(self) -> datetime:
        """The service's clock, to the second; only `tick` moves it."""
        return self.service.now

    @property
    def requests(self) -> Counter[str]:
        """How many requests came: `all`, `page`, `login`, `refresh`, and by error status such as `401`."""
        return self.service.requests

    def truth(self) -> pl.DataFrame:
        """The current rows, in the form of `d22kit.load`, sorted by `public_id`."""
        return self._frame

    def tick(
        self, hours: float = 24.0, *, inserts: int | None = None, late: int = 5, deletes: int = 0
    ) -> Tick:
        """Let time go on: rows arrive, open rows move on, and a few were committed late.

        Parameters
        ----------
        hours
            How far the clock moves, in hours; rounded to seconds.
        inserts
            New rows; by default as many as such a stretch of time brings a lender of this size.
        late
            Of the rows added, how many appear only now though their `updated_at` lies up to five minutes
            before the tick.
        deletes
            Rows that vanish without a word. An ordinary `sync` cannot see it; `audit` can.

        Raises
        ------
        InputError
            Where a number is negative, time would stand still, or there are fewer rows than `deletes`.
        """
        then, now = self.now, self.now + timedelta(seconds=round(hours * 3600))
        if now <= then or min(inserts or 0, late, deletes) < 0 or deletes > len(self._frame):
            raise InputError(
                f"tick(hours={hours}, inserts={inserts}, late={late}, deletes={deletes}) cannot be."
            )
        self._ticks += 1
        gone = self._frame[KEY].sample(deletes, seed=self._seed + self._ticks).implode()
        kept, coming = (part.filter(~pl.col(KEY).is_in(gone)) for part in (self._frame, self._coming))
        due, coming = _due(coming, now)
        moved = kept.drop(due.columns[1:]).join(due, on=KEY).select(FRAME.names())
        planned = expected(self._rows, then, now) if inserts is None else inserts
        fresh, soon = later((self._seed, self._ticks), then, now, planned)
        missed, missed_soon = later((self._seed, self._ticks, 1), then - LATE, then, late)
        # a late row skips what befell it during the tick: it would be far later than late
        missed_soon = missed_soon.filter(pl.col(VERSION) > now)
        self._coming = pl.concat([coming, soon, missed_soon]).sort(VERSION, KEY)
        self._frame = pl.concat([kept.join(due, on=KEY, how="anti"), moved, fresh, missed]).sort(KEY)
        self.service.index = index(self._frame, self._others)
        self.service.now = now
        return Tick(len(fresh), len(moved), len(missed), deletes)


def _clock(frame: pl.DataFrame) -> datetime:
    """The whole second at which every row has happened."""
    latest = frame.select(pl.col(VERSION).dt.offset_by("999999us").dt.truncate("1s").max()).item()
    return max(NOW, latest or NOW)


def _due(coming: pl.DataFrame, now: datetime) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Part the changes to come into the last one due of each row, and those that stay to come."""
    due = coming.filter(pl.col(VERSION) <= now).unique(KEY, keep="last", maintain_order=True)
    return due.select(KEY, pl.exclude(KEY)), coming.filter(pl.col(VERSION) > now)


@contextmanager
def simulate(
    rows: int | pl.DataFrame = 100_000,
    *,
    seed: int = 0,
    latency: float = 0.0,
    incidents: bool = True,
    others: int = 0,
    token_lifetime: int | None = None,
    proxy_limit: int | None = None,
    hook: Hook | None = None,
    port: int = 0,
) -> Iterator[Simulation]:
    """Run a faithful stand-in of the service on this machine, with a synthetic lender behind it.

    It answers logins, pages, totals and errors as the service promises, from a thread of its own and on a
    loopback port, and is gone when the `with` block ends. Its clock stands at 2026-06-10 08:30 UTC until
    `tick` moves it; the `Date` header tells it.

    Parameters
    ----------
    rows
        How many rows the lender has, over 400 days; or a frame of rows in the form of `d22kit.load`.
    seed
        Another seed is another lender; the same one gives the same rows and the same ticks.
    latency
        Seconds that every page waits before it is answered.
    incidents
        Whether the planted incidents happen (`d22kit.simulator.INCIDENTS`).
    others
        Rows of other lenders in the same database. The service scans them and leaves them out, so pages
        come back short, or empty with a cursor; half of them are older than the lender.
    token_lifetime
        Pages that a token is good for before it expires; None is for ever.
    proxy_limit
        A query that still has more records before it than this is answered with 504; None is no limit.
    hook
        `hook(number, request)` sees every request, numbered from 1, and may return a Starlette response to
        answer in place of the service.
    port
        The port to listen on; 0 takes a free one.

    Yields
    ------
    Simulation
        With `.endpoint`, `.tick()`, `.truth()`, `.requests` and `.now`.

    Examples
    --------
    >>> with simulate(1000) as lender:
    ...     lender.truth().height, lender.tick(hours=1, inserts=3, late=2).inserted
    (1000, 3)
    """
    simulation = Simulation(
        rows,
        seed,
        incidents=incidents,
        others=others,
        latency=latency,
        token_lifetime=token_lifetime,
        proxy_limit=proxy_limit,
        hook=hook,
    )
    with Server(simulation.service.app, port) as server:
        root = f"http://127.0.0.1:{server.port}"
        simulation.endpoint = Endpoint(root=root, lender=LENDER, email=EMAIL, password=PASSWORD)
        yield simulation


def serve(rows: int = 100_000, *, seed: int = 0, latency: float = 0.0, port: int = 0) -> None:
    """Run the simulator until it is interrupted; print the environment that points d22kit at it.

    Parameters
    ----------
    rows, seed, latency, port
        As in `simulate`.
    """
    with simulate(rows, seed=seed, latency=latency, port=port) as simulation:
        here = simulation.endpoint
        given = {"ROOT": here.root, "LENDER": here.lender, "EMAIL": here.email, "PASSWORD": here.password}
        for name, value in given.items():
            print(f"export D22KIT_{name}={shlex.quote(str(value))}", flush=True)
        while True:
            time.sleep(3600)
