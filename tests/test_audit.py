"""Audit: what the totals cannot hide is found, what is missing is fetched, and only what is gone is removed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from polars.testing import assert_frame_equal
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import d22kit
from d22kit.cli import main
from d22kit.commits import remove_keys
from d22kit.errors import InputError, ProtocolError, StoreLockedError, StoreMismatchError, StoreNotFoundError
from d22kit.schema import KEY, VERSION
from d22kit.simulator import Simulation, refuse, server
from d22kit.simulator.index import index
from d22kit.store import Store

pytestmark = pytest.mark.usefixtures("_all_at_once")

Start = Callable[..., Simulation]


@pytest.fixture(scope="module")
def month() -> pl.DataFrame:
    """A lender's last month: few days, so few windows to ask for."""
    with d22kit.simulate(12_000) as service:
        return service.truth().filter(pl.col(VERSION) >= service.now - timedelta(days=30))


@pytest.fixture
def lender(simulation: Start, month: pl.DataFrame, tmp_path: Path) -> Simulation:
    """A lender whose last month is stored at `tmp_path`."""
    service = simulation(month)
    d22kit.sync(service.endpoint, tmp_path)
    return service


QUIET = {"hours": 1 / 3600, "inserts": 0, "late": 0}


def lose(data: Path, keys: pl.Series) -> None:
    store = Store.open(data)
    remove_keys(store, keys, store.state())


def become(service: Simulation, frame: pl.DataFrame) -> None:
    """Have the service hold other rows from now on, with no time passing."""
    service._frame = frame.sort(KEY)
    service.service.index = index(service._frame)


def assert_equal(data: Path, service: Simulation) -> None:
    assert_frame_equal(d22kit.load(data).sort(KEY), service.truth(), categorical_as_str=True)


def settled(service: Simulation) -> pl.DataFrame:
    """The rows that no lookback fetches again."""
    return service.truth().filter(pl.col(VERSION) < service.now - timedelta(days=1))


def test_an_equal_store_is_equal_and_the_audit_makes_no_version(lender: Simulation, tmp_path: Path) -> None:
    before = d22kit.status(tmp_path)
    assert (before.audited, before.audited_equal) == (None, None)
    for repair in (None, "missing", "all"):
        report = d22kit.audit(lender.endpoint, tmp_path, repair=repair)
        assert report.equal
        assert (report.missing, report.surplus, report.changed, report.fetched, report.removed) == (0,) * 5
        assert report.at_service == report.in_store > 600
        assert report.until == before.watermark
    after = d22kit.status(tmp_path)
    assert after.audited_equal
    assert after.audited is not None
    assert abs(after.audited - lender.now) < timedelta(minutes=5)
    assert replace(after, audited=None, audited_equal=None) == before


def test_only_an_audit_of_everything_counts_as_the_last(lender: Simulation, tmp_path: Path) -> None:
    lose(tmp_path, settled(lender)[KEY].head(3))
    d22kit.audit(lender.endpoint, tmp_path, until=d22kit.status(tmp_path).watermark)
    assert "last audit      never" in str(d22kit.status(tmp_path))
    assert not d22kit.audit(lender.endpoint, tmp_path).equal
    assert d22kit.status(tmp_path).audited_equal is False
    assert "run 'd22kit audit --repair missing'" in str(d22kit.status(tmp_path))
    Path(tmp_path, "last-audit.json").write_text("cut")
    assert d22kit.status(tmp_path).audited is None


def test_missing_rows_are_found_on_their_day_and_fetched(lender: Simulation, tmp_path: Path) -> None:
    lost = settled(lender).sample(30, seed=1)
    lose(tmp_path, lost[KEY])
    found = d22kit.audit(lender.endpoint, tmp_path)
    assert (found.equal, found.missing, found.surplus, found.fetched) == (False, 30, 0, 0)
    assert sum(window.missing for window in found.differences) == 30
    assert {window.since.date() for window in found.differences} == set(lost[VERSION].dt.date())
    state = Store.open(tmp_path).state()
    mended = d22kit.audit(lender.endpoint, tmp_path, repair="missing")
    assert (mended.equal, mended.fetched, mended.removed) == (True, 30, 0)
    assert Store.open(tmp_path).state() == state
    assert d22kit.versions(tmp_path)["act"][0] == "audit"
    assert_equal(tmp_path, lender)


def test_rows_deleted_at_the_service_go_only_when_asked(lender: Simulation, tmp_path: Path) -> None:
    lender.tick(**QUIET, deletes=20)
    gone = d22kit.load(tmp_path).join(lender.truth(), on=KEY, how="anti").height
    kept = d22kit.audit(lender.endpoint, tmp_path, repair="missing")
    assert (kept.equal, kept.surplus, kept.gone, kept.removed) == (False, gone, gone, 0)
    few = d22kit.audit(lender.endpoint, tmp_path, repair="all", max_deletes=gone - 1)
    assert (few.equal, few.gone, few.removed) == (False, gone, 0)
    assert "max_deletes" in str(few)
    report = d22kit.audit(lender.endpoint, tmp_path, repair="all")
    assert (report.equal, report.removed) == (True, gone)
    newest = d22kit.versions(tmp_path).row(0, named=True)
    assert (newest["act"], newest["removed"]) == ("remove", gone)
    assert_equal(tmp_path, lender)
    assert d22kit.audit(lender.endpoint, tmp_path).equal


def test_rows_deleted_past_the_watermark_go_too(lender: Simulation, tmp_path: Path) -> None:
    lender.tick(hours=0.1, inserts=60)
    mark = d22kit.sync(lender.endpoint, tmp_path).watermark
    late = lender.truth().filter(pl.col(VERSION) >= mark)
    become(lender, lender.truth().filter(~pl.col(KEY).is_in(late[KEY][::2].implode())))
    report = d22kit.audit(lender.endpoint, tmp_path, repair="all", until=mark)
    assert (report.equal, report.gone) == (True, 0)
    report = d22kit.audit(lender.endpoint, tmp_path, repair="all")
    assert (report.equal, report.gone, report.removed) == (True, *[late[::2].height] * 2)
    assert late.height > 1
    assert_equal(tmp_path, lender)


def test_an_older_row_takes_the_place_of_a_newer_one_that_is_gone(lender: Simulation, tmp_path: Path) -> None:
    newer = settled(lender).sort(VERSION)[600]
    older = newer.with_columns(pl.col(VERSION) - timedelta(days=30), status=pl.lit("OLDER"))
    d22kit.sync(lender.endpoint, tmp_path)
    become(
        lender, pl.concat([lender.truth().join(newer, on=KEY, how="anti"), older.cast(lender.truth().schema)])
    )
    report = d22kit.audit(lender.endpoint, tmp_path, repair="all")
    assert (report.equal, report.gone, report.removed, report.fetched) == (True, 1, 1, 1)
    assert_equal(tmp_path, lender)


def test_a_row_that_moved_into_a_window_of_equal_number_is_kept(lender: Simulation, tmp_path: Path) -> None:
    early, late = settled(lender).sort(VERSION)[100], settled(lender).sort(VERSION)[600]
    moved = early.with_columns(late[VERSION] + timedelta(milliseconds=1))
    kept = lender.truth().filter(~pl.col(KEY).is_in([early[KEY].item(), late[KEY].item()]))
    become(lender, pl.concat([kept, moved]))
    report = d22kit.audit(lender.endpoint, tmp_path, repair="all")
    assert report.surplus == 1
    assert (report.fetched, report.removed) == (1, 1)
    assert_equal(tmp_path, lender)


def test_rows_that_changed_since_the_last_sync_are_no_difference(simulation: Start, tmp_path: Path) -> None:
    service = simulation(20_000)
    start = service.now - timedelta(days=30)
    d22kit.sync(service.endpoint, tmp_path, since=start)
    tick = service.tick(hours=48)
    report = d22kit.audit(service.endpoint, tmp_path, repair="all")
    assert report.equal
    assert 0 < report.changed <= tick.updated
    assert (report.missing, report.surplus, report.fetched, report.removed) == (0, 0, 0, 0)


def test_everything_at_once_is_mended(lender: Simulation, tmp_path: Path) -> None:
    lose(tmp_path, settled(lender)[KEY].sample(200, seed=2))
    lender.tick(hours=30, deletes=50)
    d22kit.sync(lender.endpoint, tmp_path)
    report = d22kit.audit(lender.endpoint, tmp_path, repair="all")
    assert report.equal
    assert report.fetched > 150
    assert report.removed > 20
    assert_equal(tmp_path, lender)


def test_capped_totals_are_halved(
    lender: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = d22kit.audit(lender.endpoint, tmp_path).windows
    lose(tmp_path, settled(lender)[KEY].sample(10, seed=1))
    monkeypatch.setattr(server, "TOTAL_CAP", 3)
    monkeypatch.setattr(server, "TOTAL_TIMEOUT", 6)
    report = d22kit.audit(lender.endpoint, tmp_path)
    assert (report.missing, report.surplus) == (10, 0)
    assert report.windows > days


def test_a_service_that_takes_only_short_ranges_is_asked_no_further_than_rows_can_be(
    simulation: Start, month: pl.DataFrame, tmp_path: Path
) -> None:
    def too_wide(_: int, request: Request) -> Response | None:
        query = request.query_params
        ends = [datetime.fromisoformat(query[name]) for name in ("since", "until") if name in query]
        wide = len(ends) == 2 and ends[1] - ends[0] > timedelta(days=20)
        return refuse(504, "Gateway Timeout") if wide and started else None

    started = False
    service = simulation(month, hook=too_wide)
    d22kit.sync(service.endpoint, tmp_path)
    started = True
    service.tick(**QUIET, deletes=5)
    assert d22kit.audit(
        service.endpoint, tmp_path, since=service.now - timedelta(days=60), repair="all"
    ).equal
    assert_equal(tmp_path, service)
    assert service.requests["page"] < 1_000


def test_a_count_that_is_refused_with_a_wait_is_not_asked_for_in_parts_before(
    lender: Simulation, tmp_path: Path
) -> None:
    asked: list[float] = []

    def refuse_one(_: int, request: Request) -> Response | None:
        if "includeTotal" not in request.query_params:
            return None
        asked.append(time.monotonic())
        return refuse(504, "Gateway Timeout", {"Retry-After": "1"}) if len(asked) == 1 else None

    day = settled(lender)[VERSION].max()
    assert isinstance(day, datetime)
    start = day.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
    lender.service.hook = refuse_one
    report = d22kit.audit(lender.endpoint, tmp_path, since=start, until=start + timedelta(days=1))
    assert report.equal
    assert report.windows == 2
    assert min(asked[1:]) >= asked[0] + 1.0


def test_a_moment_too_crowded_to_count_is_walked(
    simulation: Start, month: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = month[VERSION].sort()[150]
    at_once = pl.when(pl.int_range(pl.len()) < 80).then(moment).otherwise(VERSION).alias(VERSION)
    service = simulation(month.with_columns(at_once))
    d22kit.sync(service.endpoint, tmp_path)
    lose(tmp_path, service.truth().filter(pl.col(VERSION) == moment)[KEY].head(7))
    monkeypatch.setattr(server, "TOTAL_CAP", 50)
    assert d22kit.audit(service.endpoint, tmp_path, repair="missing").missing == 7
    assert_equal(tmp_path, service)


def test_a_service_without_totals_is_told(
    lender: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "TOTAL_TIMEOUT", -1)
    with pytest.raises(ProtocolError, match="gives no totals"):
        d22kit.audit(lender.endpoint, tmp_path)
    assert lender.requests["page"] < 200


def test_quarantined_rows_count_as_the_services(
    simulation: Start, month: pl.DataFrame, tmp_path: Path
) -> None:
    frame = month
    at = frame[VERSION].sort()[100]
    odd = {"updated_at": at.isoformat(), "status": "SENT"}
    service = simulation(frame)

    def with_odd(number: int, request: Request) -> Response | None:
        """Answer as the service, with one row more that has no key."""
        asked = request.query_params
        if "exports" not in request.url.path:
            return None
        first, last = server._window(service.service.index, asked)
        inside = asked.get("since", "") <= odd["updated_at"] < asked.get("until", "9999")
        rows = json.loads(b"[" + service.service.index.rows(first, last) + b"]") + [odd] * inside
        rows.sort(key=lambda row: row["updated_at"])
        pages = {"nextCursor": None, "total": len(rows), "totalExact": True}
        body = {"rows": rows, "pagination": pages, "meta": {}}
        return JSONResponse({"code": 200, "message": "ok", "body": body, "errors": []})

    service.service.hook = with_odd
    assert d22kit.sync(service.endpoint, tmp_path).quarantined == 1
    report = d22kit.audit(service.endpoint, tmp_path)
    assert (report.equal, report.quarantined) == (True, 1)
    lose(tmp_path, frame.filter(pl.col(VERSION) == at)[KEY])
    assert d22kit.audit(service.endpoint, tmp_path).missing == 1
    assert d22kit.audit(service.endpoint, tmp_path, repair="all").equal
    for file in Path(tmp_path, "quarantine").iterdir():
        file.unlink()
    assert d22kit.audit(service.endpoint, tmp_path, repair="missing").equal
    assert d22kit.quarantine(tmp_path).height == 1
    service.service.hook = None
    assert d22kit.audit(service.endpoint, tmp_path).equal
    assert_equal(tmp_path, service)


def test_only_the_range_asked_for_and_covered_is_compared(
    simulation: Start, month: pl.DataFrame, tmp_path: Path
) -> None:
    service = simulation(month)
    start, end = service.now - timedelta(days=20), service.now - timedelta(days=5)
    d22kit.sync(service.endpoint, tmp_path, since=start, until=end)
    report = d22kit.audit(service.endpoint, tmp_path)
    assert (report.equal, report.since, report.until) == (True, start, end)
    assert report.at_service == d22kit.load(tmp_path).height
    lose(tmp_path, d22kit.load(tmp_path)[KEY])
    cut = start + timedelta(days=4, hours=3)
    part = d22kit.audit(service.endpoint, tmp_path, until=cut, repair="missing")
    assert part.until == cut
    assert part.missing == part.fetched == d22kit.load(tmp_path).height
    with pytest.raises(InputError, match="covered nothing"):
        d22kit.audit(service.endpoint, tmp_path, since=end)


def test_bad_arguments_and_stores_are_told(simulation: Start, tmp_path: Path) -> None:
    service = simulation(50)
    with pytest.raises(StoreNotFoundError):
        d22kit.audit(service.endpoint, tmp_path)
    d22kit.sync(service.endpoint, tmp_path)
    for options in ({"repair": "some"}, {"max_deletes": -1}, {"since": "soon"}):
        with pytest.raises(InputError):
            d22kit.audit(service.endpoint, tmp_path, **options)
    with pytest.raises(StoreMismatchError):
        d22kit.audit(simulation(50).endpoint, tmp_path)
    with Store.open(tmp_path).writing():
        assert d22kit.audit(service.endpoint, tmp_path).equal
        with pytest.raises(StoreLockedError):
            d22kit.audit(service.endpoint, tmp_path, repair="missing")


def test_the_command_exits_with_3_where_something_differs(
    lender: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("root", "lender", "email", "password"):
        monkeypatch.setenv(f"D22KIT_{name.upper()}", str(getattr(lender.endpoint, name)))
    lose(tmp_path, settled(lender)[KEY].head(2))
    run = CliRunner().invoke(main, ["audit", "--data", str(tmp_path), "--json"])
    report = json.loads(run.output)
    assert (run.exit_code, report["equal"], report["missing"]) == (3, False, 2)
    assert len(report["differences"]) in (1, 2)
    run = CliRunner().invoke(main, ["audit", "--data", str(tmp_path), "--repair", "all"])
    assert (run.exit_code, "equal" in run.output) == (0, True)


def test_the_report_reads_well_as_text_and_as_html(lender: Simulation, tmp_path: Path) -> None:
    lose(tmp_path, settled(lender)[KEY].head(3))
    report = d22kit.audit(lender.endpoint, tmp_path)
    assert "not equal" in str(report)
    assert "repair='missing'" in str(report)
    assert "at the service" in report._repr_html_()
