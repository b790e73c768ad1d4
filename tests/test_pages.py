"""The walk: no plan, no number of workers, no split, no kill and no fault may change the set of rows."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from faulty import START, Faulty, Record, Reply, Request, envelope, failure, newest, records, reply
from hypothesis import given, settings
from hypothesis import strategies as st
from test_endpoint import GOOD, cut_short, drip, reset, reset_inside, silent

from d22kit import responses
from d22kit.endpoint import Patience, Service
from d22kit.errors import EndpointError, ProtocolError, RetriesExhaustedError
from d22kit.pages import SPARE_BYTES, SPARE_PAGES, Step, walk
from d22kit.windows import EPOCH, Window, missing

pytestmark = pytest.mark.usefixtures("_all_at_once")

QUICK = Patience(connect=2, silence=0.5, answer=1.0, attempts=8, first=0.001, longest=0.004)
HASTY = Patience(connect=2, silence=0.2, answer=0.3, attempts=30, first=0.001, longest=0.004)
MINUTE = timedelta(minutes=1)


FOREVER = datetime(9999, 12, 31, tzinfo=UTC)


def plan(
    rows: list[Record], limit: int = 10, since: datetime | None = None, open_end: bool = False
) -> list[Window]:
    """Return one window; with an open end, its walk also meets what is written while it lasts."""
    stop = (rows[-1].at if rows else START) + MINUTE
    return [Window(0, since, FOREVER if open_end else stop, stop, limit=limit)]


def steps_of(faulty: Faulty, windows: Iterable[Window], workers: int = 4, **more: object) -> list[Step]:
    with Service(faulty.endpoint, patience=QUICK) as service:
        return list(walking(service, windows, workers, **more))  # type: ignore[arg-type]


def walking(
    service: Service, windows: Iterable[Window], workers: int = 4, cancelled: threading.Event | None = None
) -> Iterator[Step]:
    cancelled = cancelled or threading.Event()
    return walk(service, list(windows), workers=workers, newest=newest, cancelled=cancelled)


def ids(steps: Iterable[Step]) -> list[str]:
    return [row["public_id"] for step in steps if step.rows for row in json.loads(step.rows)]


def versions(source: Iterable[Step | Record]) -> set[tuple[str, str]]:
    rows = []
    for item in source:
        rows += [item.json] if isinstance(item, Record) else json.loads(item.rows or b"[]")
    return {(row["public_id"], row["updated_at"]) for row in rows}


def state(windows: Iterable[Window], steps: Iterable[Step]) -> list[Window]:
    """Return the windows as somebody knows them who kept these steps."""
    known = {window.id: window for window in windows}
    for step in steps:
        known |= {window.id: window for window in step.windows}
    return list(known.values())


def covers(windows: Iterable[Window], whole: Iterable[Window]) -> bool:
    """Return whether windows, done or not, still make up the plan, and nothing twice."""
    parts = sorted(
        ((w.since or EPOCH - 90 * 365 * timedelta(days=1), w.stop) for w in windows), key=lambda part: part
    )
    overlap = any(end > start for (_, end), (start, _) in pairwise(parts))
    return not overlap and not any(
        missing([(w.since, w.stop) for w in windows], (w.since, w.stop)) for w in whole
    )


@st.composite
def lenders(draw: st.DrawFn) -> list[Record]:
    """Rows with ties longer than a page, gaps, and stretches that belong to other lenders."""
    steps = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 12), st.booleans()), max_size=12))
    rows, at = [], START
    for gap, number, shown in steps:
        at += timedelta(milliseconds=gap) * draw(st.sampled_from([1, 1000, 10**7]))
        rows += [Record(at, len(rows) + n, shown) for n in range(number)]
    return rows


cuts = st.lists(st.integers(0, 100), max_size=3)

# Nothing changes the set of rows.


@settings(max_examples=40, deadline=None)
@given(lenders(), st.integers(1, 5), st.integers(1, 4), cuts, st.booleans(), st.booleans())
def test_no_plan_and_no_crew_changes_the_rows(
    rows: list[Record], workers: int, limit: int, cuts: list[int], bounded: bool, open_end: bool
) -> None:
    first, until = START - MINUTE, (rows[-1].at if rows else START) + MINUTE
    edges = [*sorted({first + (until - first) * cut / 101 for cut in cuts} - {first}), until]
    starts = [first if bounded else None, *edges[:-1]]
    windows = [Window(n, a, b, b, limit=limit) for n, (a, b) in enumerate(zip(starts, edges, strict=True))]
    windows[-1] = replace(windows[-1], until=FOREVER if open_end else until)
    with Faulty(rows) as faulty:
        steps = steps_of(faulty, windows, workers)
        assert set(ids(steps)) == faulty.truth
        assert faulty.wrong == []
    ended = state(windows, steps)
    assert all(window.done for window in ended)
    assert covers(ended, windows)


@settings(max_examples=25, deadline=None)
@given(lenders(), st.integers(1, 4), st.integers(1, 4), st.integers(0, 100))
def test_a_walk_goes_on_from_any_step(rows: list[Record], workers: int, limit: int, percent: int) -> None:
    windows = plan(rows, limit)
    with Faulty(rows) as faulty:
        steps = steps_of(faulty, windows, workers)
        kept = steps[: len(steps) * percent // 100]
        middle = state(windows, kept)
        assert covers(middle, windows)
        middle = [Window.from_json(json.loads(json.dumps(window.to_json()))) for window in middle]
        rest = steps_of(faulty, [window for window in middle if not window.done], workers)
        assert set(ids(kept)) | set(ids(rest)) == faulty.truth
        assert faulty.wrong == []


def test_one_worker_is_the_plain_walk() -> None:
    rows = records(95)
    with Faulty(rows) as faulty:
        steps = steps_of(faulty, plan(rows), workers=1)
        assert ids(steps) == [row.json["public_id"] for row in rows]
        assert [len(step.windows) for step in steps] == [1] * 10
        assert len(faulty.pages) == 10


def test_a_small_increment_costs_one_request_for_each_page() -> None:
    rows = records(9)
    with Faulty(rows) as faulty:
        assert len(ids(steps_of(faulty, plan(rows, since=START), workers=8))) == 9
        assert len(faulty.pages) == 1


@pytest.mark.parametrize("first", [1, 4])
@pytest.mark.parametrize("empty", [0, 40])
def test_every_worker_gets_busy_also_when_the_first_pages_are_empty(
    monkeypatch: pytest.MonkeyPatch, empty: int, first: int
) -> None:
    monkeypatch.setattr("d22kit.pages.AT_FIRST", first)
    rows = [Record(row.at, row.id, row.id >= empty * 10) for row in records(400 + empty * 10)]
    together = threading.Barrier(4)

    met = threading.Event()

    def wait_for_the_others(request: Request) -> None:
        if request.is_page and not met.is_set() and len(faulty.pages) > 2:
            together.wait(10)
            met.set()

    with Faulty(rows) as faulty:
        faulty.fault = wait_for_the_others
        steps = steps_of(faulty, plan(rows), workers=4)
        assert met.is_set()
        assert set(ids(steps)) == faulty.truth


def test_one_worker_is_enough_for_a_walk_that_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d22kit.pages.AT_FIRST", 1)
    rows, asked = records(300), threading.Semaphore(0)

    def count(request: Request) -> None:
        if request.is_page:
            asked.release()

    with Faulty(rows, count) as faulty, Service(faulty.endpoint, patience=QUICK) as service:
        steps = walking(service, plan(rows), workers=4)
        taken = [next(steps)]
        assert asked.acquire(timeout=10)
        assert asked.acquire(timeout=10)
        for _ in range(28):
            # The page after the next one is asked for, so the next one is there.
            assert asked.acquire(timeout=10)
            taken.append(next(steps))
        assert [len(step.windows) for step in [*taken, *steps]] == [1] * 30


def test_splitting_costs_few_pages() -> None:
    rows = records(3000)
    with Faulty(rows, latency=0.005) as faulty:
        assert set(ids(steps_of(faulty, plan(rows), workers=8))) == faulty.truth
        assert len(faulty.pages) <= 300 * 1.1


@pytest.mark.parametrize(("size", "waiting"), [(SPARE_BYTES, 3 + SPARE_PAGES), (1, 1)])
def test_pages_ahead_of_the_consumer_are_bounded(
    monkeypatch: pytest.MonkeyPatch, size: int, waiting: int
) -> None:
    monkeypatch.setattr("d22kit.pages.SPARE_BYTES", size)
    rows = records(2000)
    with Faulty(rows) as faulty, Service(faulty.endpoint, patience=QUICK) as service:
        steps = walking(service, plan(rows), workers=3)
        next(steps)
        seen = -1
        while seen != len(faulty.pages):
            seen = len(faulty.pages)
            time.sleep(0.05)
        assert seen <= 3 + waiting + 1  # one on its way to each worker, and one is taken
        assert len(ids(steps)) >= 1990


def test_what_came_can_be_put_away_while_the_service_lets_one_wait() -> None:
    rows, away = records(50), threading.Event()

    def wait(request: Request) -> None:
        assert len(faulty.pages) < 3 or away.wait(10)

    with (
        Faulty(rows, wait) as faulty,
        Service(faulty.endpoint, patience=replace(QUICK, silence=20, answer=20)) as service,
    ):
        steps = walk(
            service, plan(rows), workers=1, newest=newest, cancelled=threading.Event(), idle=away.set
        )
        assert len(ids(steps)) == 50
        assert away.is_set()


def test_a_gentle_walk_begins_with_one_worker_and_gets_to_all() -> None:
    rows, together, met = records(1_200), threading.Barrier(4), threading.Event()
    edges = [None, *(rows[n].at for n in (300, 600, 900)), rows[-1].at + MINUTE]
    windows = [Window(n, a, b, b, limit=5) for n, (a, b) in enumerate(pairwise(edges)) if b]

    def wait_for_the_others(request: Request) -> None:
        if request.is_page and not met.is_set() and len(faulty.pages) > 130:
            together.wait(10)
            met.set()

    with Faulty(rows, wait_for_the_others) as faulty:
        with Service(faulty.endpoint, patience=replace(QUICK, silence=20, answer=20)) as service:
            gentle = walk(
                service, windows, workers=4, newest=newest, cancelled=threading.Event(), gently=True
            )
            assert set(ids(gentle)) == faulty.truth
        assert {request.query["until"] for request in faulty.pages[:40]} == {faulty.pages[0].query["until"]}
        assert met.is_set()


def test_a_gentle_walk_runs_no_page_ahead_at_first() -> None:
    rows = records(400)
    with Faulty(rows) as faulty, Service(faulty.endpoint, patience=QUICK) as service:
        steps = walk(service, plan(rows), workers=4, newest=newest, cancelled=threading.Event(), gently=True)
        for taken in range(1, 30):
            next(steps)
            assert len(faulty.pages) == taken


# Ends.


def test_a_failure_comes_after_what_was_fetched() -> None:
    rows = records(100)
    with Faulty(rows) as faulty, Service(faulty.endpoint, patience=QUICK) as service:
        faulty.fault = lambda request: failure(403, "not yours") if len(faulty.pages) > 4 else None
        steps = walking(service, plan(rows), workers=1)
        kept = [next(steps) for _ in range(4)]
        with pytest.raises(EndpointError, match="not yours"):
            next(steps)
        assert ids(kept) == [row.json["public_id"] for row in rows[:40]]


@pytest.mark.parametrize("how", ["cancelled", "closed", "unserved"])
def test_the_crew_leaves_promptly(how: str) -> None:
    rows, cancelled = records(100), threading.Event()
    with Faulty(rows) as faulty, Service(faulty.endpoint, cancelled=cancelled) as service:
        faulty.fault = lambda request: silent if len(faulty.pages) > 4 else None
        steps = walking(service, plan(rows), 3, cancelled)
        got = [next(steps) for _ in range(4)]
        if how == "cancelled":
            cancelled.set()
            got += steps
        elif how == "closed":
            steps.close()  # type: ignore[attr-defined]
        else:
            del steps
        ends = time.monotonic() + 10
        while any(thread.name.startswith("d22kit-") for thread in threading.enumerate()):
            assert time.monotonic() < ends
            time.sleep(0.01)
        assert set(ids(got)) <= faulty.truth


# Faults.


@pytest.mark.parametrize("period", [1, 2, 5])
@pytest.mark.parametrize("empty", [True, False])
def test_a_circle_of_cursors_is_an_error(period: int, empty: bool) -> None:
    cursors = [f"around-{n}" for n in range(period)]

    def round_and_round(request: Request) -> bytes | None:
        if not request.is_page:
            return None
        last = request.query.get("cursor", cursors[-1])
        following = cursors[(cursors.index(last) + 1) % period]
        rows = [] if empty else [records(3)[2].json]
        return reply(200, {**envelope(rows, following), "requestId": "req-circle"})

    with Faulty(fault=round_and_round) as faulty:
        with pytest.raises(ProtocolError, match=r"circle.*req-circle"):
            steps_of(faulty, plan(records(9)), workers=2)
        assert len(faulty.pages) < 10 * period + 20


def test_a_dead_cursor_begins_anew_at_the_last_row_met() -> None:
    rows = records(300)
    dead: set[str] = set()

    def kill_cursors(request: Request) -> bytes | None:
        cursor = request.query.get("cursor")
        if cursor and (cursor in dead or len(faulty.pages) % 11 == 0):
            dead.add(cursor)
        return failure(500, "corrupt cursor") if cursor in dead else None

    with Faulty(rows) as faulty:
        faulty.fault = kill_cursors
        steps = steps_of(faulty, windows := plan(rows), workers=2)
        assert dead
        assert set(ids(steps)) == faulty.truth
        assert covers(state(windows, steps), windows)
        assert faulty.wrong == []


@pytest.mark.parametrize("seed", [3, 4, 7])
def test_dead_cursors_among_many_rows_of_one_moment_are_got_round(seed: int) -> None:
    same = [Record(START + 20 * MINUTE, n) for n in range(20, 70)]
    rows = [*records(20), *same, *(Record(row.at + 21 * MINUTE, 1_000 + row.id) for row in records(20))]
    dead: set[str] = set()
    chance = random.Random(seed)

    def kill_some(request: Request) -> bytes | None:
        cursor = request.query.get("cursor")
        if cursor and chance.random() < 0.3:
            dead.add(cursor)
        return failure(500, "corrupt cursor") if cursor in dead else None

    with Faulty(rows, kill_some) as faulty:
        assert set(ids(steps_of(faulty, plan(rows, limit=20), workers=1))) == faulty.truth
        assert dead


def test_a_new_start_that_meets_a_cursor_again_is_no_circle() -> None:
    rows = [Record(row.at, row.id, shown=row.id > 50) for row in records(60)]
    with Faulty(rows) as faulty:
        faulty.fault = lambda request: failure(500) if 1 < len(faulty.pages) < 6 else None
        assert set(ids(steps_of(faulty, plan(rows, limit=2), workers=1))) == faulty.truth
        cursors = [request.query.get("cursor") for request in faulty.pages]
        assert cursors[1] in cursors[6:]


def test_where_every_cursor_is_dead_the_walk_still_goes_on_by_time() -> None:
    rows = records(60)
    with Faulty(rows) as faulty:
        faulty.fault = lambda request: failure(500) if "cursor" in request.query else None
        assert set(ids(steps_of(faulty, plan(rows), workers=1))) == faulty.truth


def test_where_a_new_start_comes_no_further_it_ends() -> None:
    rows = [Record(START, n) for n in range(60)]
    with Faulty(rows) as faulty:
        faulty.fault = lambda request: failure(500, "corrupt cursor") if "cursor" in request.query else None
        with pytest.raises(RetriesExhaustedError, match=r"corrupt cursor.*came no further"):
            steps_of(faulty, plan(rows), workers=1)


def days_wide(request: Request) -> float:
    query = request.query
    if "since" not in query:
        return float("inf")
    return (datetime.fromisoformat(query["until"]) - datetime.fromisoformat(query["since"])) / timedelta(
        days=1
    )


@pytest.mark.parametrize(
    "heavy",
    [
        lambda request: days_wide(request) > 30,
        lambda request: int(request.query["limit"]) > 60,
        lambda request: days_wide(request) * int(request.query["limit"]) > 20_000,
        lambda request: random.random() < 0.15,
    ],
    ids=["too wide", "too many", "too much", "at random"],
)
@pytest.mark.parametrize(("workers", "open_end"), [(1, True), (4, False), (4, True)])
def test_a_504_narrows_and_recovers(heavy: Callable[[Request], bool], workers: int, open_end: bool) -> None:
    rows = records(3000, timedelta(hours=3))
    with Faulty(rows) as faulty:
        faulty.fault = lambda request: failure(504) if request.is_page and heavy(request) else None
        steps = steps_of(faulty, windows := plan(rows, limit=1000, open_end=open_end), workers)
        assert set(ids(steps)) == faulty.truth
        assert all(window.done for window in state(windows, steps))
        assert covers(state(windows, steps), windows)
        assert faulty.wrong == []


def test_a_504_that_nothing_helps_ends() -> None:
    with Faulty(records(9)) as faulty:
        faulty.fault = lambda request: failure(504, "too slow") if request.is_page else None
        with pytest.raises(RetriesExhaustedError, match=r"504.*too slow"):
            steps_of(faulty, plan(records(9)), workers=2)
        assert len(faulty.pages) < 200


def test_bodies_past_the_limit_are_asked_for_in_smaller_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "LARGEST_BODY", 5000)
    rows = records(300)
    with Faulty(rows) as faulty:
        assert set(ids(steps_of(faulty, plan(rows, limit=1000), workers=2))) == faulty.truth
        monkeypatch.setattr(responses, "LARGEST_BODY", 10)
        with pytest.raises(ProtocolError, match="one row"):
            steps_of(faulty, plan(rows))


def test_workers_that_meet_such_bodies_at_once_do_not_take_it_for_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(responses, "LARGEST_BODY", 5000)
    rows, both = records(40), threading.Barrier(2)
    middle, end = rows[20].at, rows[-1].at + MINUTE
    windows = [Window(0, None, middle, middle, limit=8), Window(1, middle, end, end, limit=8)]

    def swell(request: Request) -> bytes | None:
        if not request.is_page or len(faulty.pages) > 4:
            return None
        both.wait(10)
        return reply(200, b" " * 6000)

    with Faulty(rows, swell) as faulty:
        assert set(ids(steps_of(faulty, windows, workers=2))) == faulty.truth
        assert [request.query["limit"] for request in faulty.pages[:6]] == ["8"] * 4 + ["2"] * 2


@contextmanager
def writing(faulty: Faulty, seed: int) -> Iterator[None]:
    """Rows change and arrive all the while."""
    rnd, done = random.Random(seed), threading.Event()

    def write() -> None:
        while not done.wait(0.002):
            faulty.write(rnd)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("seed", range(2))
def test_every_fault_together_while_rows_are_written(seed: int) -> None:
    rnd = random.Random(seed)
    bad: list[Reply] = [
        *(failure(status) for status in (429, 500, 502, 503, 504)),
        *(reply(200, body) for body in (b"", b"<html>", GOOD[:-9], {"success": False, "message": "no"})),
        *(cut_short, reset, reset_inside, silent, lambda connection: drip(connection)),
        failure(429, headers={"Retry-After": "0"}),
    ]
    rows = records(800)
    with Faulty(
        rows, lambda request: rnd.choice(bad) if rnd.random() < 0.1 else None, token_lasts=50
    ) as faulty:
        windows = plan(rows)
        with writing(faulty, seed), Service(faulty.endpoint, patience=HASTY) as service:
            steps = list(walking(service, windows))
        assert covers(state(windows, steps), windows)
        faulty.fault = lambda request: None
        steps += steps_of(faulty, plan(faulty.rows, since=windows[0].until - MINUTE))
        assert versions(faulty.rows) <= versions(steps)
        assert faulty.wrong == []
