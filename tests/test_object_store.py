"""A store in object storage: the same acts as on a disk, and one writer at a time, against a local stand-in of S3."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from stand_in import reached, stand_in
from starlette.requests import Request
from starlette.responses import Response

import d22kit
from d22kit.commits import commit_rows
from d22kit.errors import AuthError, StoreError, StoreLockedError, StoreNotFoundError, VersionNotFoundError
from d22kit.frames import Quarantined
from d22kit.schema import KEY, STORED, VERSION
from d22kit.simulator import Simulation, refuse
from d22kit.state import State
from d22kit.store import Store

Start = Callable[..., Simulation]


@pytest.fixture(scope="module")
def bucket() -> Iterator[None]:
    with stand_in() as address, reached(address):
        yield


numbers = count()


@pytest.fixture
def place(bucket: None) -> str:
    return f"s3://bucket/store-{next(numbers)}"


def assert_equal(place: str, service: Simulation) -> None:
    assert_frame_equal(d22kit.load(place).sort(KEY), service.truth(), categorical_as_str=True)


def last_days(service: Simulation) -> Simulation:
    """Leave it the rows of a few days, so that a store has few files."""
    few = service.truth().filter(pl.col(VERSION) >= service.now - timedelta(days=5))
    service._frame = few
    service.service.index = type(service)(few, 0, incidents=False, others=0).service.index
    return service


@pytest.fixture
def service(simulation: Start) -> Simulation:
    return last_days(simulation(100_000))


def test_a_store_there_is_synced_read_audited_and_vacuumed(service: Simulation, place: str) -> None:
    rows = service.truth().height
    assert d22kit.sync(service.endpoint, place).new == rows
    assert_equal(place, service)
    service.tick(hours=10, deletes=3)
    report = d22kit.sync(service.endpoint, place)
    assert report.new + report.updated > 0
    assert d22kit.audit(service.endpoint, place, repair="all").equal
    assert_equal(place, service)
    status = d22kit.status(place)
    assert (status.rows, status.unfinished) == (service.truth().height, 0)
    assert d22kit.load(place, version=1).height == rows
    changed = d22kit.changes(place, since_version=1)["change"].value_counts()
    assert set(changed["change"]) == {"inserted", "updated", "removed"}
    assert d22kit.vacuum(place, keep=timedelta(0)).files > 0
    assert_equal(place, service)
    with pytest.raises(VersionNotFoundError, match="vacuumed away"):
        d22kit.load(place, version=1)


def test_an_interrupted_sync_goes_on_there(service: Simulation, place: str) -> None:
    def failing(number: int, request: Request) -> Response | None:
        return refuse(403, "That lender is not yours.") if number > 2 else None

    service.service.hook = failing
    with pytest.raises(AuthError):
        d22kit.sync(service.endpoint, place, workers=1)
    service.service.hook = None
    assert (d22kit.load(place).height, d22kit.status(place).unfinished) == (1_000, 1)
    assert d22kit.sync(service.endpoint, place).new == service.truth().height - 1_000
    assert_equal(place, service)


def test_two_writers_there_cannot_both_commit(bucket: None, place: str) -> None:
    def row(status: str) -> pl.DataFrame:
        at = pl.Series(VERSION, ["2026-05-01"]).str.to_datetime(time_unit="us", time_zone="UTC")
        frame = pl.DataFrame({KEY: ["a"], "status": [status]}).with_columns(at)
        return pl.concat([STORED.to_frame(), frame], how="diagonal")

    first = Store.create(place, "https://example.com lender 1")
    late = Store.open(place)
    bad = [Quarantined("updated_at is missing", "req-1", '{"public_id":"b"}')]
    commit_rows(first, row("SENT"), bad, State())
    with pytest.raises(StoreLockedError, match="Another process committed"):
        commit_rows(late, row("FAILED"), [], State())
    assert d22kit.load(place)["status"].to_list() == ["SENT"]
    assert d22kit.quarantine(place).rows() == [("updated_at is missing", "req-1", '{"public_id":"b"}')]


def test_a_file_of_megabytes_arrives_whole_there(place: str) -> None:
    store = Store.create(place, "https://example.com lender 1")
    long = {"words": "x" * 3_000_000}
    store.note("long.json", long)
    assert store.noted("long.json") == long


def test_places_there_that_are_no_store_are_told_in_one_line(bucket: None) -> None:
    with pytest.raises(StoreNotFoundError, match="There is no store at s3://bucket/nowhere"):
        d22kit.load("s3://bucket/nowhere")
    with pytest.raises(StoreError, match="NoSuchBucket") as caught:
        d22kit.status("s3://no-such-bucket/store")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)
