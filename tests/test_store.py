"""The store: each key once, in its newest version, in every version; one writer; nothing half done."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import d22kit
from d22kit import commits
from d22kit.commits import commit_rows, remove_keys
from d22kit.errors import (
    InputError,
    StoreError,
    StoreFormatError,
    StoreLockedError,
    StoreMismatchError,
    StoreNotFoundError,
    VersionNotFoundError,
)
from d22kit.frames import Quarantined, latest_wins
from d22kit.schema import FRAME, KEY, STORED, VERSION
from d22kit.staging import Batch, Staging
from d22kit.state import State
from d22kit.store import Store
from d22kit.windows import Window

START = datetime(2026, 5, 1, tzinfo=UTC)


def rows(*pairs: tuple[str, int, str]) -> pl.DataFrame:
    """Rows from key, hours after the start, and status."""
    frame = pl.DataFrame(
        {
            KEY: [key for key, _, _ in pairs],
            VERSION: [START + timedelta(hours=hours) for _, hours, _ in pairs],
            "status": [status for _, _, status in pairs],
        },
        schema_overrides={VERSION: STORED[VERSION]},
    )
    return STORED.to_frame().pipe(lambda empty: pl.concat([empty, frame], how="diagonal"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path, "https://example.com lender 1")


def kept(store: Store) -> dict[str, tuple[int, str]]:
    frame = d22kit.load(store.root)
    hours = (frame[VERSION] - START).dt.total_hours()
    return {k: (h, str(s)) for k, h, s in zip(frame[KEY], hours, frame["status"], strict=True)}


def test_a_newer_row_replaces_an_older_one_in_another_partition(store: Store) -> None:
    commit_rows(store, rows(("a", 0, "QUEUED"), ("b", 0, "QUEUED")), [], State())
    counts = commit_rows(store, rows(("a", 30, "SENT"), ("c", 31, "SENT")), [], State())
    assert (counts.new, counts.updated) == (1, 1)
    assert kept(store) == {"a": (30, "SENT"), "b": (0, "QUEUED"), "c": (31, "SENT")}


def test_an_older_row_is_not_stored_and_the_same_row_makes_no_version(store: Store) -> None:
    commit_rows(store, rows(("a", 30, "SENT")), [], State())
    version = store.table.version()
    counts = commit_rows(store, rows(("a", 0, "QUEUED"), ("a", 30, "SENT")), [], State())
    assert (counts.outdated, counts.unchanged, counts.updated) == (1, 1, 0)
    assert store.table.version() == version
    assert kept(store) == {"a": (30, "SENT")}


def test_of_equal_times_the_row_fetched_last_wins(store: Store) -> None:
    commit_rows(store, rows(("a", 1, "QUEUED")), [], State())
    assert commit_rows(store, rows(("a", 1, "SENT")), [], State()).updated == 1
    assert kept(store) == {"a": (1, "SENT")}


batches = st.lists(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(0, 100), st.sampled_from(["SENT", "FAILED"])),
        max_size=6,
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=40)
@given(batches, st.sampled_from([1, 3, commits.AT_ONCE]), st.sampled_from([1, commits.SMALL]))
def test_however_rows_come_in_batches_the_store_is_the_latest_of_all(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[tuple[str, int, str]]],
    at_once: int,
    small: int,
) -> None:
    store = Store.create(tmp_path_factory.mktemp("store"), "x")
    with pytest.MonkeyPatch.context() as patch:
        for name, size in (("AT_ONCE", at_once), ("TOGETHER", at_once), ("SMALL", small)):
            patch.setattr(commits, name, size)
        for batch in batches:
            commit_rows(store, rows(*batch), [], State())
    assert all(pl.read_parquet(path)[VERSION].is_sorted() for path in store.files()["path"])
    everything = rows(*(row for batch in batches for row in batch))
    want, have = latest_wins(everything).sort(KEY), d22kit.load(store.root).sort(KEY)
    assert have.schema == FRAME
    assert_frame_equal(have.cast(dict(STORED)), want)  # type: ignore[arg-type]


def test_other_engines_see_the_same_rows_in_the_current_files(store: Store) -> None:
    commit_rows(store, rows(*((f"k{i}", i, "SENT") for i in range(100))), [], State())
    commit_rows(store, rows(*((f"k{i}", i + 5, "READ") for i in range(0, 100, 7))), [], State())
    truth = d22kit.load(store.root).sort(KEY)
    files = DeltaTable(f"{store.root}/conversations").file_uris()
    by_duckdb = duckdb.read_parquet(files).pl().drop("updated_date", strict=False).sort(KEY)
    assert by_duckdb.select(KEY, "status").equals(truth.select(KEY, pl.col("status").cast(pl.String)))
    by_pandas = pd.concat([pd.read_parquet(file, columns=[KEY, "status"]) for file in files])
    assert sorted(by_pandas[KEY]) == truth[KEY].to_list()
    by_delta = pl.read_delta(f"{store.root}/conversations").sort(KEY)
    assert by_delta.select(STORED.names()).equals(truth.cast(dict(STORED)))  # type: ignore[arg-type]
    assert (by_delta["updated_date"] == by_delta[VERSION].dt.date()).all()


def test_versions_can_be_read_by_number_and_by_time(store: Store) -> None:
    commit_rows(store, rows(("a", 0, "QUEUED")), [], State())
    first = store.table.version()
    commit_rows(store, rows(("a", 1, "SENT")), [], State())
    assert d22kit.load(store.root, version=first)["status"].to_list() == ["QUEUED"]
    when = d22kit.versions(store.root).filter(version=first)["committed_at"].item()
    assert d22kit.load(store.root, as_of=when + timedelta(milliseconds=1))[KEY].to_list() == ["a"]
    with pytest.raises(VersionNotFoundError, match="0 to 2"):
        d22kit.load(store.root, version=99)
    with pytest.raises(VersionNotFoundError, match="before the store's first version"):
        d22kit.load(store.root, as_of="2001-01-01")
    with pytest.raises(InputError, match="one of them"):
        d22kit.load(store.root, version=1, as_of="2026-01-01")


LONG_TEXTS = """
import sys
from datetime import timedelta
import polars as pl
import d22kit
from d22kit.commits import commit_rows
from d22kit.schema import KEY, STORED, VERSION
from d22kit.simulator import generate
from d22kit.state import State
from d22kit.store import Store

texts = [chr(97 + n % 26) * 1_000_000 if n % 150 == 0 else None for n in range(2_000)]
frame = generate(2_000).cast(dict(STORED)).with_columns(
    pl.Series("delivery_error_detail", texts, pl.String), pl.lit(generate(1)[VERSION][0]).alias(VERSION)
)
store = Store.create(sys.argv[1], "https://example.com lender 1")
commit_rows(store, frame, [], State())
commit_rows(store, frame.head(1).with_columns(pl.col(VERSION) + timedelta(seconds=1)), [], State())
assert d22kit.load(store.root).height == 2_000
assert d22kit.load(store.root, backend="pyarrow").nbytes < 100e6
assert len(d22kit.load(store.root, backend="pandas")) == 2_000
print(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's peak of a process's own")
def test_nulls_beside_long_texts_take_no_memory(tmp_path: Path) -> None:
    """Two thousand rows hold 14 texts of a megabyte; counted with every null that points at one it is two gigabytes."""
    done = subprocess.run(
        [sys.executable, "-c", LONG_TEXTS, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 800_000


@pytest.mark.parametrize("wrong", ["1", 1.0])
def test_a_version_is_a_whole_number(wrong: Any, store: Store) -> None:
    with pytest.raises(InputError, match="whole number"):
        d22kit.changes(store.root, since_version=wrong)
    with pytest.raises(VersionNotFoundError):
        d22kit.changes(store.root, since_version=99)


def test_changes_tell_inserted_updated_and_removed_rows_apart(store: Store) -> None:
    commit_rows(store, rows(("a", 0, "QUEUED"), ("b", 0, "QUEUED"), ("c", 40, "SENT")), [], State())
    since = store.table.version()
    commit_rows(store, rows(("a", 50, "SENT"), ("d", 51, "SENT")), [], State())
    remove_keys(store, pl.Series(["b"]), State())
    found = d22kit.changes(store.root, since_version=since).select(KEY, "change", "old_status", "status")
    assert sorted(found.iter_rows()) == [
        ("a", "updated", "QUEUED", "SENT"),
        ("b", "removed", "QUEUED", "QUEUED"),
        ("d", "inserted", None, "SENT"),
    ]
    assert d22kit.changes(store.root, since_version=store.table.version()).is_empty()
    with pytest.raises(InputError, match="swap"):
        d22kit.changes(store.root, since_version=2, until_version=1)


def test_a_vacuumed_version_is_refused_and_the_newest_stays(store: Store) -> None:
    commit_rows(store, rows(("a", 0, "QUEUED")), [], State())
    commit_rows(store, rows(("a", 1, "SENT")), [], State())
    orphan = Path(store.root, "conversations", "updated_date=2026-05-01", "left-by-a-kill.parquet")
    orphan.write_bytes(b"half a file")
    report = d22kit.vacuum(store.root, keep=timedelta(0))
    assert report.files == 2
    assert not orphan.exists()
    assert kept(store) == {"a": (1, "SENT")}
    with pytest.raises(VersionNotFoundError, match="vacuumed away"):
        d22kit.load(store.root, version=1)
    with pytest.raises(VersionNotFoundError, match="vacuumed away"):
        d22kit.changes(store.root, since_version=1, until_version=2)


def test_quarantined_rows_are_listed_once(store: Store) -> None:
    bad = [Quarantined("updated_at is missing", "req-1", '{"public_id":"a"}')]
    commit_rows(store, rows(("b", 0, "SENT")), bad, State())
    commit_rows(store, rows(("c", 0, "SENT")), bad, State())
    assert d22kit.quarantine(store.root).rows() == [("updated_at is missing", "req-1", '{"public_id":"a"}')]
    assert d22kit.status(store.root).quarantined == 1


def test_a_damaged_quarantine_is_no_empty_one(store: Store) -> None:
    commit_rows(store, rows(("b", 0, "SENT")), [Quarantined("odd", None, "7")], State())
    (file,) = Path(store.root, "quarantine").glob("*.parquet")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(StoreError, match=r"quarantine cannot be read.*audit\(repair='missing'\)"):
        d22kit.quarantine(store.root)
    with pytest.raises(StoreError, match="quarantine cannot be read"):
        d22kit.status(store.root)


def test_the_state_travels_with_the_rows_and_is_found_behind_other_writers(store: Store) -> None:
    window = Window(3, since=None, until=START, stop=START, cursor="abc", position=START)
    state = State(((None, START),), (window,), START, None, 7)
    commit_rows(store, rows(("a", 0, "SENT")), [], state)
    DeltaTable(f"{store.root}/conversations").optimize.compact()
    assert Store.open(store.root).state() == state
    assert State.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_files_that_another_tool_wrote_are_read_and_updated_like_our_own(store: Store) -> None:
    commit_rows(store, rows(*((f"k{i}", i, "SENT") for i in range(10))), [], State())
    commit_rows(store, rows(*((f"k{i}", i, "SENT") for i in range(10, 20))), [], State())
    whole, before = d22kit.load(store.root).sort(KEY), store.table.version()
    DeltaTable(f"{store.root}/conversations").delete("public_id = 'k3'")
    assert_frame_equal(d22kit.load(store.root).sort(KEY), whole.filter(pl.col(KEY) != "k3"))
    commit_rows(
        Store.open(store.root), rows(("k3", 3, "SENT"), ("k5", 5, "SENT"), ("k7", 9, "READ")), [], State()
    )
    assert kept(store) == {f"k{i}": (i, "SENT") for i in range(20)} | {"k7": (9, "READ")}
    changed = d22kit.changes(store.root, since_version=before).select(KEY, "change", "status", "old_status")
    assert changed.rows() == [("k7", "updated", "READ", "SENT")]


def test_a_stale_writer_cannot_commit(store: Store) -> None:
    late = Store.open(store.root)
    commit_rows(store, rows(("a", 0, "SENT")), [], State())
    with pytest.raises(StoreLockedError, match="Another process committed"):
        commit_rows(late, rows(("a", 1, "SENT")), [], State())
    assert kept(store) == {"a": (0, "SENT")}


def test_a_second_writer_is_told_who_holds_the_lock(store: Store) -> None:
    with (
        store.writing(),
        pytest.raises(StoreLockedError, match=r"process \d+ on"),
        Store.open(store.root).writing(),
    ):
        pass


def test_staged_pages_survive_and_committed_ones_are_cleared(store: Store) -> None:
    window = Window(1, since=None, until=START, stop=START, cursor="next")
    bad = (Quarantined("why", None, "{}"),)
    staging = Staging(store, 0)
    staging.put(Batch(rows(("a", 0, "SENT")), bad, (window,)))
    staging.put(Batch(rows(("b", 0, "SENT")), (), ()))
    again = Staging(store, 0)
    first, second = again.left_over()
    assert_frame_equal(again.rows(first), rows(("a", 0, "SENT")))
    assert (first.rows.height, first.height) == (0, 1)
    assert (first.quarantined, first.windows, second.number) == (bad, (window,), 2)
    (left,) = Staging(store, 1).left_over()
    assert left.number == 2
    again.put(Batch(rows(("c", 0, "SENT")), (), ()))
    again.clear(2)
    (last,) = Staging(store, 2).left_over()
    assert_frame_equal(again.rows(last), rows(("c", 0, "SENT")))
    again.clear(3)
    assert list(Path(store.root, "staging").iterdir()) == []


def test_a_staging_file_in_pieces_gives_its_whole_batches(store: Store) -> None:
    staging = Staging(store, 0)
    for key in "abc":
        staging.put(Batch(rows((key, 0, "SENT")), (), ()))
    (file,) = Path(store.root, "staging").iterdir()
    content = file.read_bytes()
    starts = [content.index(b'{"windows"', n) for n in (0, len(content) // 3, 2 * len(content) // 3)]
    for cut in range(len(content) + 1):
        file.write_bytes(content[:cut])
        whole = sum(cut >= end for end in (*starts[1:], len(content)))
        assert [b.number for b in Staging(store, 0).left_over()] == [1, 2, 3][:whole]
    file.write_bytes(content[:-20] + bytes(20))  # a length on the disk, and its content not
    assert len(Staging(store, 0).left_over()) == 2


def test_places_that_are_no_store_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match="d22kit sync"):
        d22kit.load(tmp_path / "nowhere")
    pl.DataFrame({"x": [1]}).write_delta(str(tmp_path / "other" / "conversations"))
    with pytest.raises(StoreFormatError, match="not made by d22kit"):
        d22kit.status(tmp_path / "other")
    store = Store.create(tmp_path / "newer", "x")
    store.table.alter.set_table_properties({"d22kit.format": "99"}, raise_if_not_exists=False)
    with pytest.raises(StoreFormatError, match="format 99"):
        d22kit.load(tmp_path / "newer")
    with pytest.raises(StoreMismatchError, match="belongs to x"):
        Store.create(tmp_path / "mine", "x").check_owner("y")


def test_load_bounds_columns_and_backends(store: Store) -> None:
    commit_rows(store, rows(*((f"k{i}", i, "SENT") for i in range(72))), [], State())
    day = d22kit.load(store.root, since="2026-05-02", until="2026-05-03", on="updated_at")
    assert day.height == 24
    assert d22kit.load(store.root, columns=["updated_date", KEY]).columns == ["updated_date", KEY]
    assert d22kit.load(store.root, backend="pyarrow").num_rows == 72
    frame = d22kit.load(store.root, backend="pandas")
    assert isinstance(frame["status"].dtype, pd.CategoricalDtype)
    assert frame[VERSION].dtype == pd.ArrowDtype(
        d22kit.load(store.root, backend="pyarrow").schema.field(VERSION).type
    )
    with pytest.raises(InputError, match=r"'nope'.*public_id"):
        d22kit.load(store.root, columns=["nope"])
    with pytest.raises(InputError, match="no time column"):
        d22kit.scan(store.root, on="status")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="does not lie before"):
        d22kit.load(store.root, since="2026-05-02", until="2026-05-01")
    with pytest.raises(InputError, match="backend"):
        d22kit.load(store.root, backend="spark")  # type: ignore[call-overload]


def test_an_empty_store_loads_as_an_empty_frame(store: Store) -> None:
    assert d22kit.load(store.root).equals(FRAME.to_frame())
    assert d22kit.status(store.root).watermark is None
