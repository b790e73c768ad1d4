"""Kills and full disks: whatever a process was about to write, the store stays right and the next run goes on."""

from __future__ import annotations

import multiprocessing
import os
import re
import secrets
import shutil
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable
from polars.testing import assert_frame_equal
from starlette.requests import Request

import d22kit
from d22kit import pages, syncing
from d22kit.commits import commit_rows, remove_keys
from d22kit.errors import StoreError, StoreFormatError
from d22kit.frames import Quarantined
from d22kit.schema import CREATED, KEY, STORED, VERSION
from d22kit.simulator import Simulation, generate, simulate
from d22kit.state import State
from d22kit.store import Store

if sys.platform == "win32":
    pytest.skip("Windows has neither forks nor limits on a file's size", allow_module_level=True)

import resource

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["d22kit.auditing", "d22kit.simulator", "d22kit.snapshots", "pytest"])
"""Forks of a process that has imported what takes long are there at once."""
WRITES = os.O_WRONLY | os.O_RDWR
LOG_ENTRY = re.compile(r"\d{20}\.json")


def acts(data: Path, before_each: Callable[[], None]) -> None:
    """Call something before each act on disk under a place, and after those that only delta-rs sees inside."""

    def watched(event: str, args: tuple[Any, ...]) -> None:
        act = event in ("os.mkdir", "os.rename", "os.remove") or (event == "open" and args[2] & WRITES)
        if act and str(data) in str(args[:2]):
            before_each()

    def around(act: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
        @wraps(act)
        def wrapped(*args: Any, **options: Any) -> Any:
            before_each()
            result = act(*args, **options)
            if after:
                before_each()
            return result

        return wrapped

    sys.addaudithook(watched)
    os.fsync = around(os.fsync, after=False)
    for name in ("create_write_transaction", "vacuum"):
        setattr(DeltaTable, name, around(getattr(DeltaTable, name), after=True))


def live(who: dict[str, str], data: Path, command: str, last: int) -> None:
    """Run a command that ends with its nth act on disk."""
    numbers = count(1)

    def perhaps_die() -> None:
        if next(numbers) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    syncing.COMMIT_ROWS, syncing.STAGE_PAGES, pages.AT_FIRST = 1_000, 1, 2
    acts(data, perhaps_die)
    run(who, data, command)


def run(who: dict[str, str], data: Path, command: str) -> None:
    endpoint = d22kit.Endpoint(**who)
    if command == "sync":
        d22kit.sync(endpoint, data, workers=2, progress=False)
    elif command == "audit":
        d22kit.audit(endpoint, data, repair="all")
    else:
        d22kit.vacuum(data, keep=timedelta(0))


def fork(target: Callable[..., None], *args: object) -> int | None:
    child = FORKS.Process(target=target, args=args)
    child.start()
    child.join()
    return child.exitcode


def account(service: Simulation) -> dict[str, str]:
    return {name: str(getattr(service.endpoint, name)) for name in ("root", "lender", "email", "password")}


@pytest.fixture(scope="module")
def service() -> Iterator[Simulation]:
    """Two pages of rows, all of one day: few files, so that few acts are many kinds of acts."""
    rows = generate(1_500, seed=5).with_row_index("n")
    moment = pl.lit(datetime(2026, 5, 1, tzinfo=UTC)) + pl.duration(seconds="n")
    with simulate(rows.with_columns(moment.alias(CREATED), moment.alias(VERSION)).drop("n")) as running:
        yield running


@pytest.fixture(scope="module")
def stores(service: Simulation, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What each command finds: nothing; a store that lacks rows and has others; files that no version needs."""
    base = tmp_path_factory.mktemp("stores")
    d22kit.sync(service.endpoint, base / "vacuum", progress=False)
    whole = Store.open(base / "vacuum")
    with whole.writing():
        remove_keys(whole, d22kit.load(base / "vacuum")[KEY].head(7), whole.state())
    shutil.copytree(base / "vacuum", base / "audit")
    service.tick(deletes=5, inserts=0, late=0)
    return {command: base / command for command in ("sync", "audit", "vacuum")}


@pytest.mark.parametrize("command", ["sync", "audit", "vacuum"])
def test_a_kill_at_any_act_on_disk_loses_and_doubles_nothing(
    service: Simulation, stores: dict[str, Path], tmp_path: Path, command: str
) -> None:
    who, truth = account(service), service.truth()
    found = d22kit.load(stores[command])[KEY] if stores[command].exists() else pl.Series(KEY, [], pl.String)
    for last in count(1):
        data = tmp_path / str(last)
        if stores[command].exists():
            shutil.copytree(stores[command], data)
        code = fork(live, who, data, command, last)
        if Store.exists(data):
            rows = d22kit.load(data)
            assert rows[KEY].is_unique().all()
            assert set(rows[KEY]) <= {*truth[KEY], *found}
            assert {*truth[KEY]} & {*found} <= set(rows[KEY])
        if code == 0:
            break
        assert code == -signal.SIGKILL
        run(who, data, command)
        if command != "vacuum":
            assert_frame_equal(d22kit.load(data).sort(KEY), truth.sort(KEY), categorical_as_str=True)
            assert not any((data / "staging").glob("*"))
        shutil.rmtree(data)
    assert last > 6


def test_kill_after_kill_while_rows_change(simulation: Callable[..., Simulation], tmp_path: Path) -> None:
    service, data = simulation(8_000), tmp_path / "store"
    codes = []
    for last in (3, 21, 40, 75, 130, 330):
        codes.append(fork(live, account(service), data, "sync", last))
        if Store.exists(data):
            rows = d22kit.load(data)
            assert rows[KEY].is_unique().all()
            assert rows.join(service.truth(), on=KEY, how="anti").is_empty()
        service.tick(hours=2)
    assert codes.count(-signal.SIGKILL) >= 4
    run(account(service), data, "sync")
    assert_frame_equal(d22kit.load(data).sort(KEY), service.truth().sort(KEY), categorical_as_str=True)


def test_a_sync_that_is_killed_at_every_fifth_page_keeps_two_of_them(
    simulation: Callable[..., Simulation], tmp_path: Path
) -> None:
    service, begun, lives = simulation(20_000), threading.Event(), 0

    def perhaps_kill(number: int, request: Request) -> None:
        nonlocal asked
        asked += "exports" in request.url.path
        if asked == (5 if lives else 15):  # by then the first page is on disk
            begun.wait()
            child.kill()

    service.service.hook = perhaps_kill
    code = None
    while code != 0:
        asked = 0
        child = FORKS.Process(target=run, args=(account(service), tmp_path, "sync"))
        child.start()
        begun.set()
        child.join()
        begun.clear()
        code, lives = child.exitcode, lives + 1
        assert lives < 13
    assert_frame_equal(d22kit.load(tmp_path).sort(KEY), service.truth().sort(KEY), categorical_as_str=True)


def with_little_room(act: Callable[..., object], *args: object) -> None:
    """Do something on a disk that is full after some bytes of a file; exit 1 where it says so."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        act(*args)
    except StoreError:
        sys.exit(1)


def test_a_sync_on_a_full_disk_says_so_and_the_next_goes_on(
    simulation: Callable[..., Simulation], tmp_path: Path
) -> None:
    service = simulation(3_000)
    assert fork(with_little_room, run, account(service), tmp_path, "sync") == 1
    run(account(service), tmp_path, "sync")
    assert_frame_equal(d22kit.load(tmp_path).sort(KEY), service.truth().sort(KEY), categorical_as_str=True)


def set_apart(data: Path, raw: str) -> None:
    store = Store.open(data)
    commit_rows(store, STORED.to_frame(), [Quarantined("odd", None, raw)], store.state())


def test_a_quarantine_file_in_pieces_hides_no_other(tmp_path: Path) -> None:
    Store.create(tmp_path, "somebody")
    set_apart(tmp_path, "first")
    assert fork(with_little_room, set_apart, tmp_path, secrets.token_hex(200_000)) == 1
    assert d22kit.quarantine(tmp_path)["raw"].to_list() == ["first"]


def test_a_name_is_put_on_the_disk_after_what_it_names(
    simulation: Callable[..., Simulation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power loss leaves is what was flushed: a file's bytes, and the names in a directory."""
    fsync, data = os.fsync, tmp_path / "store"
    sizes: dict[int, int] = {}
    names: set[tuple[int, str, int]] = set()
    early: list[str] = []

    def watched(handle: int) -> None:
        about = os.fstat(handle)
        inside = []
        if stat.S_ISDIR(about.st_mode):
            with os.scandir(handle) as entries:
                inside = [(about.st_ino, entry.name, entry.inode()) for entry in entries]
        early.extend(name for _, name, file in inside if LOG_ENTRY.fullmatch(name) and file not in sizes)
        fsync(handle)
        sizes[about.st_ino] = about.st_size
        names.update(inside)

    monkeypatch.setattr(os, "fsync", watched)
    service = simulation(3_000)
    d22kit.sync(service.endpoint, data, progress=False)
    set_apart(data, "odd")
    assert early == []
    for path in [data, *data.rglob("*")]:
        if not path.name.startswith(".lock"):
            assert (path.parent.stat().st_ino, path.name, path.stat().st_ino) in names, path
            assert path.is_dir() or sizes[path.stat().st_ino] == path.stat().st_size, path


@pytest.mark.parametrize(
    "left", [lambda whole: b"", lambda whole: whole[:200], lambda whole: bytes(len(whole))]
)
@pytest.mark.parametrize("name", ["*.json", "*.checkpoint.parquet", "_last_checkpoint"])
def test_a_log_that_a_power_loss_left_in_pieces_is_as_it_was_before(
    simulation: Callable[..., Simulation], tmp_path: Path, name: str, left: Callable[[bytes], bytes]
) -> None:
    service, log = simulation(1_500), tmp_path / "conversations" / "_delta_log"
    d22kit.sync(service.endpoint, tmp_path, progress=False)
    before = d22kit.load(tmp_path)
    DeltaTable(log.parent).create_checkpoint()
    if name == "*.json":
        service.tick(hours=1)
        d22kit.sync(service.endpoint, tmp_path, progress=False)
    torn = max(log.glob(name))
    torn.write_bytes(left(torn.read_bytes()))
    assert_frame_equal(d22kit.load(tmp_path), before)
    d22kit.sync(service.endpoint, tmp_path, progress=False)
    assert_frame_equal(d22kit.load(tmp_path).sort(KEY), service.truth().sort(KEY), categorical_as_str=True)


def test_a_log_in_pieces_is_left_alone_while_another_process_writes(tmp_path: Path) -> None:
    store = Store.create(tmp_path, "somebody")
    commit_rows(store, STORED.to_frame(), [], State(floor=None))
    entry = max((tmp_path / "conversations" / "_delta_log").glob("*.json"))
    entry.write_bytes(b"{")
    with store.writing(), pytest.raises(StoreFormatError, match="cannot be read"):
        Store.open(tmp_path)
    assert entry.read_bytes() == b"{"
    assert Store.open(tmp_path).table.version() == store.table.version() - 1
    assert entry.with_name(f"{entry.name}.torn").read_bytes() == b"{"
