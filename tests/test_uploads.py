"""Extracts in object storage: whole or as it was, whatever is refused or interrupted on the way."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from stand_in import reached, stand_in

import d22kit
from d22kit.commits import commit_rows
from d22kit.errors import ConfigError, ExtractError, InputError
from d22kit.extracts import extract, verify
from d22kit.extracts.objects import names_at
from d22kit.schema import KEY, STORED, VERSION
from d22kit.simulator import generate
from d22kit.state import State
from d22kit.store import Store

FORMS = (("x.parquet", None), ("x.csv", None), ("x.csv.gz", None), ("hive", "platform"))
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
ROWS = 300


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store in two versions, of which the second has rows of more purposes and platforms."""
    root = str(tmp_path_factory.mktemp("store"))
    fill(root)
    return root


def fill(root: str) -> None:
    frame = generate(ROWS, seed=5).cast(dict(STORED)).sort("platform")
    store = Store.create(root, "https://api.example.test lender acme")
    for part in (frame[: ROWS // 2], frame[ROWS // 2 :]):
        commit_rows(store, part, [], State())


# ------------------------------------------------------------------------------------------ as on a disk


def texts(path: str) -> pl.DataFrame:
    return d22kit.load(path).with_columns(pl.col(pl.Categorical).cast(pl.String)).sort(VERSION, KEY)


def test_extracts_and_their_store_are_there_as_on_a_disk(data: str, tmp_path: Path) -> None:
    with stand_in() as address, reached(address):
        fill("s3://bucket/store")
        for form, by in FORMS:
            made = extract(f"s3://bucket/{form}", "s3://bucket/store", partition_by=by)
            assert verify(made.path).ok
            assert_frame_equal(texts(made.path), texts(extract(tmp_path / form, data, partition_by=by).path))
            extract(made.path, data, partition_by=by, overwrite=True)
            for name in names_at(made.path):
                file = tmp_path / (f"{form}/{name}" if by else form)
                with httpx.stream("GET", f"{address}/bucket/{file.relative_to(tmp_path).as_posix()}") as held:
                    assert b"".join(held.iter_raw()) == file.read_bytes()
            with pytest.raises(ExtractError, match="overwrite=True"):
                extract(made.path, data, partition_by=by)
        extract(made.path, data, partition_by="purpose", overwrite=True)
        assert verify(made.path).ok
        odd = extract("s3://bucket/a name with 50%/", data, partition_by="delivery_code")
        assert verify(odd.path).ok
        assert texts(odd.path)[KEY].equals(texts(data)[KEY])
        alone = extract("s3://bucket/alone.parquet", data)
        httpx.delete(f"{address}/bucket/alone.parquet.datapackage.json").raise_for_status()
        assert d22kit.load(alone.path).height == alone.rows
        cut = (tmp_path / "x.csv").read_bytes()[:9_000]
        httpx.put(f"{address}/bucket/x.csv", content=cut).raise_for_status()
        with pytest.raises(ExtractError, match="has 9,000 bytes"):
            d22kit.load("s3://bucket/x.csv")
        for name in ("", "/", "/a//x.csv", "/a/../x.csv", "/x.csv?y=1"):
            with pytest.raises(InputError, match="names no object"):
                extract(f"s3://bucket{name}", data)
        with pytest.raises(ExtractError, match="of the store at s3://bucket/store"):
            extract("s3://bucket/store/conversations/x.parquet", data)
        for act in (d22kit.load, verify, lambda place: extract(place, data)):
            with pytest.raises(ConfigError, match="holds credentials") as caught:
                act("s3://key:s3cret@bucket/x.csv")
            assert "s3cret" not in str(caught.value)
        with pytest.raises(ConfigError, match="names no bucket"):
            extract("s3://", data)
        with pytest.raises(ExtractError, match=r"could not be written: .* Nothing was left behind"):
            extract("s3://no-such-bucket/x.csv", data)
        with pytest.raises(ExtractError, match="no object storage"):
            extract("gopher://hole/x.csv", data)


# ------------------------------------------------------------------------------------------ what is refused


class Gate:
    """Object storage that asks before each change of it: `before` may refuse it, or do something meanwhile."""

    def __init__(self, behind: Callable[..., Iterable[bytes]]) -> None:
        self._behind = behind
        self.bucket: Any = None
        self.changes = 0
        self.before: Callable[[int], bool] = lambda change: True

    def __call__(self, asked: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        changes = asked["REQUEST_METHOD"] in ("PUT", "DELETE") or asked["QUERY_STRING"] == "delete"
        self.changes += changes
        if not changes or self.before(self.changes):
            return self._behind(asked, start)
        asked["wsgi.input"].read(int(asked.get("CONTENT_LENGTH") or 0))
        start("403 Forbidden", [("Content-Type", "application/xml")])
        return [DENIED]

    def held(self) -> dict[str, bytes]:
        """Return the objects; what ends in a slash only stands for a directory."""
        every = self.bucket.objects.all()
        return {found.key: found.get()["Body"].read() for found in every if found.key[-1] != "/"}

    def fill(self, objects: dict[str, bytes]) -> None:
        self.guard(lambda change: True)
        self.bucket.objects.delete()
        for name, content in objects.items():
            self.bucket.put_object(Key=name, Body=content)

    def guard(self, before: Callable[[int], bool]) -> None:
        self.changes, self.before = 0, before


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    moto = pytest.importorskip("moto.server")
    serving = pytest.importorskip("werkzeug.serving")
    gate = Gate(moto.DomainDispatcherApplication(moto.create_backend_app))
    server = serving.make_server("127.0.0.1", 0, gate, threaded=True)
    Thread(target=server.serve_forever, daemon=True).start()
    with reached(f"http://127.0.0.1:{server.server_port}"):
        boto3 = pytest.importorskip("boto3")
        boto3.client("s3").create_bucket(Bucket="bucket")
        gate.bucket = boto3.resource("s3").Bucket("bucket")
        yield gate
    server.shutdown()


@pytest.fixture
def bucket(gate: Gate) -> Gate:
    """The gate, open, before an empty bucket."""
    gate.fill({})
    return gate


def changes(gate: Gate, act: Callable[[], Any]) -> int:
    """Return how many changes of the bucket an act makes."""
    gate.guard(lambda change: True)
    act()
    return gate.changes


@pytest.mark.parametrize(("form", "by"), [FORMS[0], FORMS[-1]])
def test_a_new_extract_that_is_refused_leaves_nothing(
    form: str, by: str | None, data: str, bucket: Gate
) -> None:
    def act() -> None:
        extract(f"s3://bucket/{form}", data, partition_by=by)

    for change in range(1, changes(bucket, act) + 1):
        bucket.fill({})
        bucket.guard(lambda now, refused=change: now != refused)
        with pytest.raises(ExtractError, match=r"could not be written: .*Nothing was left behind\."):
            act()
        assert not list(bucket.bucket.objects.all())


@pytest.mark.parametrize(("form", "by"), [FORMS[0], FORMS[-1]])
def test_an_overwrite_that_is_refused_leaves_what_was_there(
    form: str, by: str | None, data: str, bucket: Gate
) -> None:
    old, act = replacing(form, by, data, bucket)
    for change in range(1, changes(bucket, act) + 1):
        bucket.fill(old)
        bucket.guard(lambda now, refused=change: now != refused)
        said = error_of(act)
        if said:
            assert "Nothing was left behind." in said
            assert bucket.held() == old
        else:  # refused was to clear up
            assert verify(f"s3://bucket/{form}").version == 2


@pytest.mark.parametrize(("form", "by"), [FORMS[0], FORMS[-1]])
def test_where_nothing_can_be_put_back_it_is_said_where_it_lies(
    form: str, by: str | None, data: str, bucket: Gate
) -> None:
    old, act = replacing(form, by, data, bucket)
    told = 0
    for change in range(1, changes(bucket, act) + 1):
        bucket.fill(old)
        bucket.guard(lambda now, last=change: now < last)
        said, held = error_of(act), bucket.held()
        if "may be left" in said:
            told += 1
            kept = said.partition("before lies in s3://bucket/")[2].partition("/. ")[0]
            assert old == {name: held.get(f"{kept}/{name}", held.get(name)) for name in old}
        elif said:
            assert held == old
        else:
            assert verify(f"s3://bucket/{form}").version == 2
    assert told


@pytest.mark.parametrize(("form", "by"), [FORMS[0], FORMS[-1]])
def test_one_that_is_interrupted_stops_before_the_next_object_and_leaves_what_was_there(
    form: str, by: str | None, data: str, bucket: Gate, tmp_path: Path
) -> None:
    old, act = replacing(form, by, data, bucket)
    code = (
        "import sys, threading; from d22kit.extracts import extract, objects\n"
        "class Event(threading.Event):\n"
        "    def set(self): super().set(); print('stop', flush=True)\n"
        "objects.Event = Event\n"
        "extract(sys.argv[1], sys.argv[2], partition_by=sys.argv[3] or None, overwrite=True)"
    )
    command = [sys.executable, "-c", code, f"s3://bucket/{form}", data, "type" if by else ""]
    copies, every = len(old) if by else 1, changes(bucket, act)
    for change in (1, copies + 1, every - copies):
        bucket.fill(old)
        with (
            (tmp_path / "said").open("w") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        ):

            def interrupt(now: int, at: int = change, process: subprocess.Popen[str] = process) -> bool:
                if now == at:
                    process.send_signal(signal.SIGINT)
                    assert process.stdout is not None
                    assert process.stdout.readline() == "stop\n"
                return True

            bucket.guard(interrupt)
            process.wait(timeout=60)
        said = (tmp_path / "said").read_text()
        assert "KeyboardInterrupt" in said
        if change + 1 < every - copies:
            assert bucket.held() == old
        else:
            assert bucket.held() == old or verify(f"s3://bucket/{form}").version == 2


def error_of(act: Callable[[], Any]) -> str:
    try:
        act()
    except ExtractError as error:
        return str(error)
    return ""


def replacing(
    form: str, by: str | None, data: str, bucket: Gate
) -> tuple[dict[str, bytes], Callable[[], Any]]:
    """Put an extract of the first version; return what is there then, and how to put one of the second."""
    place = f"s3://bucket/{form}"
    extract(place, data, partition_by=by, version=1)
    return bucket.held(), lambda: extract(place, data, partition_by=by and "type", overwrite=True)
