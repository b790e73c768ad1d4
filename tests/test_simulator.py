"""The simulator keeps the service's promises, and its lender is believable."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from starlette.requests import Request
from starlette.responses import Response

from d22kit.errors import InputError
from d22kit.schema import CREATED, FRAME, KEY, VERSION
from d22kit.simulator import HOLIDAYS, INCIDENTS, NOW, Simulation, generate, refuse, simulate
from d22kit.times import iso

Start = Callable[..., Simulation]
Connect = Callable[[Simulation], "Client"]


class Client:
    """A plain client of the contract, that shares no code with d22kit's own."""

    def __init__(self, simulation: Simulation) -> None:
        self.endpoint = simulation.endpoint
        self.http = httpx.Client(trust_env=False)
        answer = self.login()
        self.token, self.refresh_token, self.lender_id = (
            answer[k] for k in ("token", "refreshToken", "lenderPublicId")
        )

    def login(self) -> dict[str, str]:
        return self.http.post(
            self.endpoint.login_url, json={"email": self.endpoint.email, "password": self.endpoint.password}
        ).json()

    def ask(self, **params: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return self.http.get(self.endpoint.export_url(self.lender_id), params=params, headers=headers)

    def pages(self, **params: Any) -> Iterator[dict[str, Any]]:
        cursor: dict[str, str] = {}
        while True:
            response = self.ask(**params, **cursor)
            assert response.status_code == 200, response.text
            yield response.json()["body"]
            if not (text := response.json()["body"]["pagination"]["nextCursor"]):
                return
            cursor = {"cursor": text}

    def walk(self, **params: Any) -> list[dict[str, Any]]:
        return [row for page in self.pages(**params) for row in page["rows"]]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Make clients that are closed when the test ends."""
    with ExitStack() as stack:

        def client(simulation: Simulation) -> Client:
            made = Client(simulation)
            stack.callback(made.http.close)
            return made

        yield client


def rows_of(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows as JSON should show them, written in plain Python."""
    rows = []
    for row in frame.sort(VERSION, KEY).drop("extra").iter_rows(named=True):
        names = {
            "status": "delivery_status",
            "code": "delivery_code",
            "error_detail": "delivery_error_detail",
        }
        delivery = {key: row.pop(name) for key, name in names.items()}
        rows.append(
            row | {"delivery_status": delivery, CREATED: iso(row[CREATED]), VERSION: iso(row[VERSION])}
        )
    return rows


@pytest.mark.parametrize("limit", [1, 7, 100, 1000, None])
def test_a_walk_meets_every_row_once_in_order(simulation: Start, connect: Connect, limit: int | None) -> None:
    lender = simulation(500)
    found = connect(lender).walk(**({"limit": limit} if limit else {}))
    assert found == rows_of(lender.truth())
    assert lender.requests["page"] == -(-500 // (limit or 500))


def test_a_descending_walk_is_the_same_backwards(simulation: Start, connect: Connect) -> None:
    lender = simulation(500)
    assert connect(lender).walk(limit=33, sort="desc") == rows_of(lender.truth())[::-1]


def test_since_is_inclusive_and_until_exclusive(simulation: Start, connect: Connect) -> None:
    lender = simulation(300)
    times = lender.truth()[VERSION].sort()
    inside = lender.truth().filter(pl.col(VERSION).is_between(times[50], times[250], closed="left"))
    for sort in ("asc", "desc"):
        found = connect(lender).walk(since=iso(times[50]), until=iso(times[250]), limit=9, sort=sort)
        assert sorted(row[KEY] for row in found) == inside[KEY].to_list()


@pytest.mark.parametrize("sort", ["asc", "desc"])
def test_ties_longer_than_a_page_are_walked_through(
    simulation: Start, connect: Connect, lender_frame: pl.DataFrame, sort: str
) -> None:
    moment = datetime(2026, 6, 1, tzinfo=UTC)
    tied = lender_frame.head(1500).with_columns(pl.lit(moment, FRAME[VERSION]).alias(VERSION))
    found = connect(simulation(tied)).walk(limit=1000, sort=sort)
    assert sorted(row[KEY] for row in found) == tied[KEY].to_list()


def test_the_lender_itself_has_a_long_tie() -> None:
    assert generate(100_000)[VERSION].value_counts()["count"].max() == 250


def test_pages_run_short_and_empty_but_carry_a_cursor(simulation: Start, connect: Connect) -> None:
    lender = simulation(500, others=5_000)
    pages = list(connect(lender).pages(limit=50))
    sizes = [len(page["rows"]) for page in pages]
    assert sizes[0] == 0
    assert 0 < min(size for size in sizes if size) < 50
    assert [row for page in pages for row in page["rows"]] == rows_of(lender.truth())
    assert connect(lender).walk(limit=50, sort="desc") == rows_of(lender.truth())[::-1]


@pytest.mark.parametrize(("limit", "size"), [(0, 1), (-5, 1), (5000, 1000), ("many", 500)])
def test_limit_is_clamped(simulation: Start, connect: Connect, limit: Any, size: int) -> None:
    assert len(connect(simulation(1200)).ask(limit=limit).json()["body"]["rows"]) == size


def test_the_same_cursor_gives_the_same_page_while_rows_are_written(
    simulation: Start, connect: Connect
) -> None:
    lender = simulation(500)
    client = connect(lender)
    cursor = client.ask(limit=100).json()["body"]["pagination"]["nextCursor"]
    before = client.ask(limit=100, cursor=cursor).json()
    lender.tick(hours=1)
    assert client.ask(limit=100, cursor=cursor).json()["body"]["rows"] == before["body"]["rows"]


def test_a_walk_during_writes_skips_nothing_that_stood_still(simulation: Start, connect: Connect) -> None:
    lender = simulation(800)
    before, met = lender.truth(), []
    for number, page in enumerate(connect(lender).pages(limit=50)):
        met += [row[KEY] for row in page["rows"]]
        if number % 5 == 0:
            lender.tick(hours=2)
    assert set(before[KEY]) <= set(met)


def test_totals_and_their_notes(simulation: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    lender = simulation(400)
    client = connect(lender)
    window = {"since": "2025-01-01", "until": "2027-01-01", "limit": 1, "includeTotal": "true"}

    def total(**params: Any) -> tuple[Any, ...]:
        pagination = client.ask(**params).json()["body"]["pagination"]
        return tuple(pagination.get(key) for key in ("total", "totalExact", "totalNote"))

    assert total(**window) == (400, True, None)
    assert total(limit=1) == (None, None, None)
    assert total(limit=1, includeTotal="true") == (None, False, "window_required")
    monkeypatch.setattr("d22kit.simulator.server.TOTAL_CAP", 100)
    assert total(**window) == (100, False, "capped")
    monkeypatch.setattr("d22kit.simulator.server.TOTAL_TIMEOUT", 399)
    assert total(**window) == (None, False, "timeout")


def test_errors_come_in_their_envelope(simulation: Start, connect: Connect) -> None:
    lender = simulation(10)
    client = connect(lender)
    url = client.endpoint.export_url(client.lender_id)
    bearer = {"Authorization": f"Bearer {client.token}"}
    cursor = "A" + client.ask(limit=1).json()["body"]["pagination"]["nextCursor"]
    refused = [
        (401, client.http.get(url)),
        (401, client.http.get(url, headers={"Authorization": client.token})),
        (401, client.http.get(url, headers={"Authorization": "Bearer nonsense"})),
        (401, client.http.post(client.endpoint.login_url, json={"email": "x", "password": "y"})),
        (401, client.http.post(client.endpoint.login_url.replace("oasis", "mirage"), json={})),
        (401, client.http.post(client.endpoint.refresh_url, content=b"no json")),
        (403, client.http.get(url.replace(client.lender_id, "someone-else"), headers=bearer)),
        (404, client.http.get(url.replace("D22", "D99"), headers=bearer)),
        (404, client.http.get(client.endpoint.root + "/nowhere")),
        (500, client.ask(cursor=cursor)),
        (500, client.ask(cursor="é")),
        (500, client.ask(since="yesterday")),
    ]
    for status, response in refused:
        assert response.status_code == status
        assert response.json().keys() == {"success", "message", "requestId"}
    assert lender.requests["401"] == 6


def test_an_expired_token_is_refused_and_renewed(simulation: Start, connect: Connect) -> None:
    client = connect(simulation(10, token_lifetime=2))
    assert [client.ask().status_code for _ in range(3)] == [200, 200, 401]
    renewed = client.http.post(client.endpoint.refresh_url, json={"refreshToken": client.refresh_token})
    client.token = renewed.json()["token"]
    assert client.ask().status_code == 200


def test_a_wide_query_runs_into_the_proxy_until_it_is_narrowed(simulation: Start, connect: Connect) -> None:
    lender = simulation(400, proxy_limit=100)
    times = lender.truth()[VERSION].sort()
    client = connect(lender)
    assert client.ask().status_code == 504
    assert len(client.walk(since=iso(times[0]), until=iso(times[100]), limit=10)) == 100


def test_a_hook_answers_in_place_of_the_service(simulation: Start, connect: Connect) -> None:
    def hook(number: int, request: Request) -> Response | None:
        return refuse(429, "Slow down", {"Retry-After": "1"}) if number == 2 else None

    client = connect(simulation(10, hook=hook))
    assert client.ask().headers["retry-after"] == "1"
    assert client.ask().status_code == 200


def test_the_date_header_is_the_simulated_clock(simulation: Start, connect: Connect) -> None:
    lender = simulation(10)
    client = connect(lender)
    assert parsedate_to_datetime(client.ask().headers["date"]) == NOW
    lender.tick(hours=1.5)
    assert parsedate_to_datetime(client.ask().headers["date"]) == NOW + timedelta(hours=1.5)


def test_the_clock_is_not_behind_the_rows(simulation: Start) -> None:
    moment = datetime(2027, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)
    frame = generate(3).with_columns(pl.lit(moment, FRAME[VERSION]).alias(VERSION))
    assert simulation(frame).now == datetime(2027, 1, 1, 0, 0, 1, tzinfo=UTC)


def test_unknown_fields_are_served_beside_the_known(simulation: Start, connect: Connect) -> None:
    frame = generate(3).with_columns(extra=pl.Series([None, '{"retries":2}', None]))
    (row,) = [row for row in connect(simulation(frame)).walk() if "retries" in row]
    assert row["retries"] == 2


def test_a_tick_adds_moves_and_removes_rows(simulation: Start, connect: Connect) -> None:
    lender = simulation(20_000, seed=2)
    before, then = lender.truth(), lender.now
    tick = lender.tick(hours=24, inserts=40, late=4, deletes=3)
    after = lender.truth()
    assert (tick.inserted, tick.late, tick.deleted) == (40, 4, 3)
    assert len(after) == 20_000 + 40 + 4 - 3
    new = after.join(before, on=KEY, how="anti")
    assert len(new.filter(pl.col(VERSION) <= then)) == 4
    assert new[VERSION].min() >= then - timedelta(minutes=5)
    moved = after.join(before, on=KEY).filter(pl.col(VERSION) != pl.col(f"{VERSION}_right"))
    assert len(moved) == tick.updated > 0
    assert moved[VERSION].min() > then
    assert after[VERSION].max() <= lender.now
    assert after.schema == FRAME
    assert connect(lender).walk(limit=1000) == rows_of(after)


def test_only_late_rows_come_from_before_the_tick(simulation: Start) -> None:
    lender = simulation(2_000)
    for _ in range(5):
        before, then = lender.truth(), lender.now
        lender.tick(hours=20, late=20)
        new = lender.truth().join(before, on=[KEY, VERSION], how="anti")
        assert len(new.filter(pl.col(VERSION) <= then)) == 20
        assert new[VERSION].min() >= then - timedelta(minutes=5)


def test_open_rows_come_to_an_end() -> None:
    with simulate(100_000, seed=2) as lender:
        still_open = lender.truth().filter(
            pl.col("delivery_status").is_in(["QUEUED", "DEFERRED", "IN_PROGRESS"])
        )
        lender.tick(hours=24 * 30, inserts=0, late=0)
        ended = lender.truth().join(still_open, on=KEY, how="semi")
    assert len(still_open) > 5
    assert not ended["delivery_status"].is_in(["QUEUED", "DEFERRED", "IN_PROGRESS"]).any()


def test_the_same_seed_lives_the_same_life() -> None:
    lives = []
    for seed in (4, 4, 5):
        with simulate(1_000, seed=seed) as lender:
            lender.tick(hours=30, deletes=2)
            lender.tick(hours=1)
            lives.append(lender.truth())
    assert_frame_equal(lives[0], lives[1], categorical_as_str=True)
    assert lives[0][KEY].to_list() != lives[2][KEY].to_list()


@pytest.mark.parametrize("bad", [{"hours": 0}, {"inserts": -1}, {"late": -1}, {"deletes": 11}])
def test_a_tick_that_cannot_be(simulation: Start, bad: dict[str, Any]) -> None:
    lender = simulation(10)
    with pytest.raises(InputError, match="cannot be"):
        lender.tick(**bad)


def test_a_negative_number_of_rows_is_refused() -> None:
    with pytest.raises(InputError, match="0 or more"):
        generate(-1)


# --- the lender is believable


@pytest.mark.parametrize("rows", [0, 1, 2, 12, 999])
def test_as_many_rows_as_asked_for(rows: int) -> None:
    frame = generate(rows)
    assert frame.schema == FRAME
    assert len(frame) == frame[KEY].n_unique() == rows


def test_keys_are_object_ids_of_the_second_of_creation(lender_frame: pl.DataFrame) -> None:
    assert lender_frame[KEY].str.contains("^[0-9a-f]{24}$").all()
    assert lender_frame[KEY].is_sorted()
    seconds = lender_frame[KEY].str.head(8).str.to_integer(base=16)
    assert (seconds == lender_frame[CREATED].dt.epoch("s")).all()


def test_times_lie_in_the_history(lender_frame: pl.DataFrame) -> None:
    assert (lender_frame[VERSION] >= lender_frame[CREATED]).all()
    assert lender_frame[CREATED].min() >= NOW - timedelta(days=400)
    assert NOW - timedelta(hours=2) < lender_frame[VERSION].max() <= NOW


def daily(frame: pl.DataFrame) -> pl.DataFrame:
    day = pl.col(CREATED).dt.convert_time_zone("Asia/Dubai").dt.date().alias("day")
    return frame.filter(pl.col("type") == "OUTBOUND").group_by(day).len().sort("day").slice(1).head(398)


def test_weeks_months_and_holidays_have_their_rhythm() -> None:
    days = daily(generate(100_000, incidents=False)).with_columns(
        weekday=pl.col("day").dt.weekday(), holiday=pl.col("day").is_in(list(HOLIDAYS))
    )
    usual = days.filter(pl.col("weekday") < 5, ~pl.col("holiday"))["len"].mean()
    assert days.filter(pl.col("weekday") > 5)["len"].mean() < 0.3 * usual
    assert days.filter(pl.col("weekday") < 5, "holiday")["len"].mean() < 0.35 * usual
    assert days.tail(100)["len"].mean() > 1.5 * days.head(100)["len"].mean()
    last = pl.col("day").dt.month_end() == pl.col("day")
    assert days.filter(last, pl.col("weekday") < 5)["len"].mean() > 1.15 * usual


def test_office_hours_are_local(lender_frame: pl.DataFrame) -> None:
    hour = (
        lender_frame.filter(pl.col("type") == "OUTBOUND")[CREATED]
        .dt.convert_time_zone("Asia/Dubai")
        .dt.hour()
    )
    assert hour.is_between(8, 20).mean() > 0.9


def test_answers_follow_messages(lender_frame: pl.DataFrame) -> None:
    share = lender_frame.group_by(pl.col("platform").cast(pl.String)).agg(
        (pl.col("type") == "INBOUND").sum() / (pl.col("type") == "OUTBOUND").sum()
    )
    answers = dict(share.iter_rows())
    assert set(answers) == {"EMAIL", "SMS", "WHATSAPP", "VOICE"}
    assert answers["WHATSAPP"] > 3 * answers["SMS"] > 0


@pytest.mark.parametrize("incident", INCIDENTS, ids=lambda incident: incident.name)
def test_incidents_stand_out_and_can_be_switched_off(incident: Any) -> None:
    def measure(frame: pl.DataFrame) -> float:
        rows = frame.filter(pl.col("platform") == incident.platform, pl.col("type") == "OUTBOUND")
        hit = rows.filter(pl.col(CREATED).is_between(incident.start, incident.end, closed="left"))
        if incident.metric == "volume":
            return len(hit) / 200
        word = "BOUNCED" if incident.metric == "bounce_rate" else "FAILED"
        return float((hit["delivery_status"] == word).mean())  # type: ignore[arg-type]

    assert measure(generate(100_000)) > 0.25
    assert measure(generate(100_000, incidents=False)) < 0.1


@pytest.mark.parametrize("part", ["numpy", "starlette", "uvicorn"])
def test_what_is_missing_is_named(part: str) -> None:
    code = (
        f"import sys; sys.modules['{part}'] = None\n"
        "import d22kit\n"
        "try: d22kit.simulate\n"
        "except d22kit.errors.ConfigError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert f"needs {part}" in said
    assert "d22kit[demo]" in said


def test_serve_prints_the_environment_it_needs() -> None:
    code = "from d22kit.simulator import serve; serve(100)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        lines = [process.stdout.readline() for _ in range(4)]  # type: ignore[union-attr]
        given = dict(line.removeprefix("export D22KIT_").strip().split("=", 1) for line in lines)
        answer = httpx.post(
            f"{given['ROOT']}/admin/auth/{given['LENDER']}/login",
            json={"email": given["EMAIL"], "password": given["PASSWORD"]},
            trust_env=False,
        )
        process.kill()
    assert answer.json()["token"]
