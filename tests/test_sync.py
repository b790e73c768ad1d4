"""Sync: the store equals the service, row by row, whatever happens on the way."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import d22kit
from d22kit.commits import commit_rows
from d22kit.errors import (
    AuthError,
    ConfigError,
    EndpointError,
    InputError,
    StoreError,
    StoreLockedError,
    StoreMismatchError,
)
from d22kit.frames import Parsed, parse
from d22kit.schema import KEY
from d22kit.simulator import Simulation, refuse, simulate
from d22kit.state import Counts
from d22kit.store import Store

pytestmark = pytest.mark.usefixtures("_all_at_once")

Start = Callable[..., Simulation]


def assert_equal(data: Path, simulation: Simulation) -> None:
    assert_frame_equal(d22kit.load(data).sort(KEY), simulation.truth().sort(KEY), categorical_as_str=True)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_backfill_and_its_increments_equal_the_service(
    simulation: Start, tmp_path: Path, workers: int
) -> None:
    service = simulation(5_000, others=500)
    report = d22kit.sync(service.endpoint, tmp_path, workers=workers)
    assert (report.new, report.updated, report.quarantined) == (5_000, 0, 0)
    assert_equal(tmp_path, service)
    for _ in range(3):
        tick = service.tick(hours=30)
        report = d22kit.sync(service.endpoint, tmp_path, workers=workers)
        assert (report.new, report.updated) == (tick.inserted + tick.late, tick.updated)
        assert_equal(tmp_path, service)


def test_a_sync_with_nothing_to_do_makes_no_version(simulation: Start, tmp_path: Path) -> None:
    service = simulation(500)
    first = d22kit.sync(service.endpoint, tmp_path)
    again = d22kit.sync(service.endpoint, tmp_path)
    assert (again.new, again.updated, again.versions, again.version) == (0, 0, 0, first.version)


@pytest.fixture(scope="module")
def still() -> Iterator[Simulation]:
    """A service on which no time passes."""
    with simulate(600) as service:
        yield service


bounded = st.tuples(st.integers(0, 400), st.integers(1, 400), st.sampled_from([1, 3]))


@settings(max_examples=10)
@given(syncs=st.lists(bounded, min_size=1, max_size=3))
def test_bounded_syncs_in_any_order_leave_no_hole(
    still: Simulation, tmp_path_factory: pytest.TempPathFactory, syncs: list[tuple[int, int, int]]
) -> None:
    data = tmp_path_factory.mktemp("store")
    for start, days, workers in syncs:
        since = still.now - timedelta(days=start)
        d22kit.sync(still.endpoint, data, since=since, until=since + timedelta(days=days), workers=workers)
    d22kit.sync(still.endpoint, data)
    floor = still.now - timedelta(days=max(start for start, _, _ in syncs))
    want = still.truth().filter(pl.col("updated_at") >= floor)
    assert_frame_equal(d22kit.load(data).sort(KEY), want.sort(KEY), categorical_as_str=True)


def test_since_sets_the_floor_and_a_later_one_moves_it_back(simulation: Start, tmp_path: Path) -> None:
    service = simulation(1_000)
    d22kit.sync(service.endpoint, tmp_path, since=service.now - timedelta(days=30))
    few = d22kit.load(tmp_path).height
    assert 0 < few < 1_000
    service.tick(inserts=10, late=0)
    d22kit.sync(service.endpoint, tmp_path)
    assert d22kit.load(tmp_path).height == few + 10
    d22kit.sync(service.endpoint, tmp_path, since="2000-01-01")
    assert_equal(tmp_path, service)


def test_rows_that_change_during_the_walk_are_met(tmp_path: Path) -> None:
    def moving(number: int, request: Request) -> None:
        if number in (4, 7):
            service.tick(hours=1)

    with simulate(5_000, hook=moving) as service:
        d22kit.sync(service.endpoint, tmp_path, workers=3)
        assert_equal(tmp_path, service)


def test_an_interrupted_sync_keeps_what_it_has_and_goes_on(tmp_path: Path) -> None:
    answered = 0

    def failing(number: int, request: Request) -> Response | None:
        nonlocal answered
        if "exports" not in request.url.path:
            return None
        answered += 1
        return refuse(403, "That lender is not yours.") if answered in (6, 7, 8, 9) else None

    with simulate(8_000, hook=failing) as service:
        with pytest.raises(AuthError, match="not yours") as caught:
            d22kit.sync(service.endpoint, tmp_path, workers=1)
        assert "5,000 rows of this sync are kept" in caught.value.__notes__[0]
        assert d22kit.load(tmp_path).height == 5_000
        assert d22kit.status(tmp_path).unfinished == 1
        answered = 100
        report = d22kit.sync(service.endpoint, tmp_path, workers=1)
        assert report.new == 3_000
        assert_equal(tmp_path, service)


def test_while_its_first_rows_are_still_to_come_a_store_is_complete_up_to_nowhere(tmp_path: Path) -> None:
    answered, limit = 0, 100

    def failing(number: int, request: Request) -> Response | None:
        nonlocal answered
        answered += "exports" in request.url.path
        return refuse(403, "not now") if answered > limit else None

    with simulate(8_000, hook=failing) as service:
        d22kit.sync(service.endpoint, tmp_path, since=service.truth()["updated_at"].sort()[4_000])
        before = d22kit.status(tmp_path).watermark
        limit = answered + 3
        with pytest.raises(AuthError, match="not now"):
            d22kit.sync(service.endpoint, tmp_path, since="2000-01-01", workers=1)
        limit = answered + 10_000
        assert before is not None
        assert d22kit.status(tmp_path).watermark is None
        assert d22kit.versions(tmp_path)["watermark"][0] is None
        report = d22kit.audit(service.endpoint, tmp_path)
        assert report.unfinished
        assert "A sync was interrupted" in str(report)
        assert d22kit.status(tmp_path).audited is None
        assert d22kit.sync(service.endpoint, tmp_path).watermark is not None
        assert_equal(tmp_path, service)


def test_rows_that_cannot_be_stored_are_committed_on_the_way(simulation: Start, tmp_path: Path) -> None:
    service = simulation(50)
    odd = [{"public_id": f"{n:024x}", "updated_at": None} for n in range(1_000)]

    def unstorable(number: int, request: Request) -> Response | None:
        if "exports" not in request.url.path:
            return None
        page = int(request.query_params.get("cursor", 0)) + 1
        rows = [row | {"n": page} for row in odd]
        pagination = {"nextCursor": str(page) if page < 170 else None}
        body = {"rows": rows, "pagination": pagination, "meta": {}}
        return JSONResponse({"code": 200, "message": "ok", "body": body, "errors": []})

    service.service.hook = unstorable
    report = d22kit.sync(service.endpoint, tmp_path, workers=1)
    assert report.quarantined == 170_000
    assert report.versions > 2


def test_a_quarantined_row_that_is_stored_later_is_quarantined_no_more(
    simulation: Start, tmp_path: Path
) -> None:
    service = simulation(50)
    at = service.truth()["updated_at"].max().isoformat()
    odd = [{"public_id": f"66aaaaaaaaaaaaaaaaaaaaa{n}", "updated_at": at, "status": ["?"]} for n in range(2)]

    def also(number: int, request: Request) -> Response | None:
        if "exports" not in request.url.path:
            return None
        body = {"rows": odd, "pagination": {"nextCursor": None}, "meta": {}}
        return JSONResponse({"code": 200, "message": "ok", "body": body, "errors": []})

    service.service.hook = also
    assert d22kit.sync(service.endpoint, tmp_path).quarantined == 2
    odd[0]["status"] = "SENT"
    d22kit.sync(service.endpoint, tmp_path)
    assert d22kit.load(tmp_path).height == 1
    assert [json.loads(raw)["public_id"][-1] for raw in d22kit.quarantine(tmp_path)["raw"]] == ["1"]
    assert d22kit.status(tmp_path).quarantined == 1


def test_a_store_whose_cursors_the_service_refuses_goes_on_without_them(tmp_path: Path) -> None:
    """A cursor is kept with the rows, and without a new start every later sync would be refused as well."""
    kept: set[str | None] = set()

    def refusing(number: int, request: Request) -> Response | None:
        if not kept:
            return refuse(403, "not now") if number > 6 else None
        return refuse(400, "invalid cursor") if request.query_params.get("cursor") in kept else None

    with simulate(8_000, hook=refusing) as service:
        with pytest.raises(AuthError, match="not now"):
            d22kit.sync(service.endpoint, tmp_path, workers=1)
        kept |= {window.cursor for window in Store.open(tmp_path).state().windows}
        assert kept
        assert None not in kept
        assert d22kit.sync(service.endpoint, tmp_path, workers=1).new < 8_000
        assert_equal(tmp_path, service)


@pytest.fixture(scope="module")
def backfill() -> Iterator[Simulation]:
    with simulate(12_000) as service:
        yield service


@pytest.mark.parametrize("part", [n / 6 for n in range(6)])
def test_a_ctrl_c_between_any_two_lines_loses_no_row(
    backfill: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: float
) -> None:
    monkeypatch.setattr("d22kit.syncing.COMMIT_ROWS", 3_000)
    met, at = 0, -1

    def lines(frame: FrameType, event: str, _: object) -> Any:
        nonlocal met
        if not frame.f_code.co_qualname.startswith(("_Run._", "Staging.")):
            return None
        met += event == "line"
        if met == at:
            raise KeyboardInterrupt
        return lines

    def traced_sync(data: Path) -> None:
        sys.settrace(lines)
        try:
            d22kit.sync(backfill.endpoint, data)
        finally:
            sys.settrace(None)

    traced_sync(tmp_path / "whole")
    at, met = int(met * part) + 1, 0
    with suppress(KeyboardInterrupt):
        traced_sync(tmp_path / "cut")
    d22kit.sync(backfill.endpoint, tmp_path / "cut")
    assert_equal(tmp_path / "cut", backfill)


def test_a_ctrl_c_while_pages_are_read_loses_no_row(
    backfill: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = iter(range(12))

    def interrupt(pages: Sequence[tuple[bytes, str | None]]) -> Parsed:
        if next(read) == 1:
            raise KeyboardInterrupt
        return parse(pages)

    with monkeypatch.context() as patched:
        patched.setattr("d22kit.syncing.parse", interrupt)
        with pytest.raises(KeyboardInterrupt):
            d22kit.sync(backfill.endpoint, tmp_path)
    d22kit.sync(backfill.endpoint, tmp_path)
    assert_equal(tmp_path, backfill)


def test_a_ctrl_c_that_meets_a_commit_under_way_keeps_what_came(
    backfill: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, made = iter(range(12)), iter(range(12))

    def interrupted_read(pages: Sequence[tuple[bytes, str | None]]) -> Parsed:
        if next(read) == 1:
            raise KeyboardInterrupt
        return parse(pages)

    def interrupted_commit(*given: Any) -> Counts:
        if next(made) == 0:  # as Polars does in whatever thread it works
            raise KeyboardInterrupt
        return commit_rows(*given)

    with monkeypatch.context() as patched:
        patched.setattr("d22kit.syncing.parse", interrupted_read)
        patched.setattr("d22kit.syncing.commit_rows", interrupted_commit)
        with pytest.raises(KeyboardInterrupt) as stopped:
            d22kit.sync(backfill.endpoint, tmp_path)
    kept = d22kit.load(tmp_path).height
    assert kept > 0
    assert stopped.value.__notes__ == [
        f"{kept:,} rows of this sync are kept in {tmp_path}; the same sync goes on from there."
    ]


def test_odd_rows_are_quarantined_named_and_met_again(simulation: Start, tmp_path: Path) -> None:
    service = simulation(50)
    odd = [
        {
            "public_id": "66aaaaaaaaaaaaaaaaaaaaaa",
            "updated_at": service.truth()["updated_at"].max().isoformat(),
            "v": 2,
        },
        {"public_id": "66bbbbbbbbbbbbbbbbbbbbbb", "updated_at": None},
    ]

    def also(number: int, request: Request) -> Response | None:
        if "exports" not in request.url.path:
            return None
        pagination = {"nextCursor": None}
        return JSONResponse(
            {
                "code": 200,
                "message": "ok",
                "body": {"rows": odd, "pagination": pagination, "meta": {}},
                "errors": [],
            },
            headers={"Date": service.now.strftime("%a, %d %b %Y %H:%M:%S GMT")},
        )

    service.service.hook = also
    report = d22kit.sync(service.endpoint, tmp_path)
    assert (report.new, report.quarantined, report.unknown_fields) == (1, 1, ("v",))
    assert d22kit.load(tmp_path)["extra"].to_list() == ['{"v":2}']
    assert d22kit.quarantine(tmp_path)["reason"].to_list() == ["updated_at is missing"]
    assert "quarantine()" in str(report)


def test_another_lender_is_refused_and_nothing_changes(simulation: Start, tmp_path: Path) -> None:
    d22kit.sync(simulation(100).endpoint, tmp_path)
    before = d22kit.status(tmp_path)
    with pytest.raises(StoreMismatchError, match="belongs to"):
        d22kit.sync(simulation(100).endpoint, tmp_path)
    assert d22kit.status(tmp_path) == before


def test_two_syncs_at_once_are_refused(simulation: Start, tmp_path: Path) -> None:
    service = simulation(100)
    d22kit.sync(service.endpoint, tmp_path)
    with Store.open(tmp_path).writing(), pytest.raises(StoreLockedError, match="writing to the store"):
        d22kit.sync(service.endpoint, tmp_path)


@pytest.mark.parametrize("owner", ["us", "them"])
def test_a_store_that_another_process_makes_meanwhile_is_used_or_refused(tmp_path: Path, owner: str) -> None:
    made = Store.create(tmp_path, "us")
    if owner == "us":
        assert Store.create(tmp_path, "us").table.version() == made.table.version()
    else:
        with pytest.raises(StoreMismatchError, match="belongs to us"):
            Store.create(tmp_path, "them")


@pytest.mark.parametrize("left", [b"", b"\x00\xff garbage", b"999999999", b"process 7 on another host"])
def test_a_lock_that_nobody_holds_stops_nobody(simulation: Start, tmp_path: Path, left: bytes) -> None:
    service = simulation(100)
    d22kit.sync(service.endpoint, tmp_path)
    for name in (".lock", ".lock-holder"):
        (tmp_path / name).write_bytes(left)
    assert d22kit.sync(service.endpoint, tmp_path).versions == 0


def test_a_lock_without_its_note_still_holds(tmp_path: Path) -> None:
    store = Store.create(tmp_path, "us")
    (tmp_path / ".lock-holder").mkdir()
    with store.writing(), pytest.raises(StoreLockedError, match="unknown process"), store.writing():
        pass


def test_bad_arguments_leave_no_trace(simulation: Start, tmp_path: Path) -> None:
    data, service = tmp_path / "store", simulation(10)
    here = service.endpoint
    wrong = d22kit.Endpoint(root=here.root, lender=here.lender, email=here.email, password="wrong")
    gone = d22kit.Endpoint(root="http://127.0.0.1:9", lender_id="x", token="t")
    for error, endpoint, options in (
        (InputError, here, {"since": "soon"}),
        (InputError, here, {"since": "2026-05-02", "until": "2026-05-01"}),
        (InputError, here, {"workers": 0}),
        (InputError, here, {"lookback": timedelta(-1)}),
        (AuthError, wrong, {}),
        (EndpointError, gone, {}),
        (ConfigError, None, {}),
    ):
        with pytest.raises(error):
            d22kit.sync(endpoint, data, **options)
    assert not data.exists()


def test_a_store_that_cannot_be_written_says_so(simulation: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(StoreError, match="file"):
        d22kit.sync(simulation(10).endpoint, tmp_path / "file" / "store")
