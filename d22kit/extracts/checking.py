"""Whether an extract is still as it was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import polars as pl
import pyarrow as pa
from pyarrow.fs import LocalFileSystem

from d22kit.display import number, plain
from d22kit.extracts.places import strangers
from d22kit.packages import SCANS, Package, checksum, read_bytes, storage

__all__ = ["digest", "problems"]

_UNREADABLE = (
    OSError,
    KeyError,
    ValueError,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    pa.ArrowException,
)


def problems(package: Package) -> Iterator[str]:
    """Say what is wrong with an extract's files, one sentence each."""
    damaged = [*_damaged(package)]
    yield from damaged
    if not damaged:
        # Of whole files, so what differs then is the description.
        try:
            yield from _miscounted(package)
            yield from _contradicted(package)
        except _UNREADABLE as error:
            yield f"A file of {package.place} was another one when it was described: {plain(error)}."
    if package.folder:
        # Names that begin with a dot or a line no reader takes for rows.
        foreign = (
            name for name in strangers(package.place, package) if name.rpartition("/")[2][0] not in "._"
        )
        yield from (f"{name} does not belong to the extract." for name in foreign)
    for ending, written in package.about.get("beside", {}).items():
        content = read_bytes(package.place + ending)
        if content is None:
            yield f"{package.place}{ending} is missing."
        elif digest(content) != written:
            yield f"{package.place}{ending} has changed since it was written."


def digest(content: bytes) -> str:
    """Return the checksum of a small file as descriptions give it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _damaged(package: Package) -> Iterator[str]:
    for file, part in package.files.items():
        try:
            digest, size = checksum(file)
        except FileNotFoundError:
            yield f"{file} is missing."
        except OSError as error:
            yield f"{file} cannot be read: {error.strerror or error}."
        else:
            if size != part["bytes"]:
                yield f"{file} has {number(size)} bytes, and had {number(part['bytes'])} when it was written."
            elif f"sha256:{digest}" != part["hash"]:
                yield f"{file} has changed since it was written: its SHA-256 is another one."


def _miscounted(package: Package) -> Iterator[str]:
    total = 0
    for file, part in package.files.items():
        rows = _rows(file, part["format"])
        total += part["row_count"]
        if rows not in (None, part["row_count"]):
            yield f"{file} holds {number(rows or 0)} rows, and its description says {number(part['row_count'])}."
    if total != package.about["rows"]:
        yield f"The files have {number(total)} rows, and the description says {number(package.about['rows'])}."


def _rows(file: str, kind: str) -> int | None:
    """Count a file's rows; None where d22kit cannot read the format."""
    if kind not in SCANS:
        return None
    return int(SCANS[kind]([file]).select(pl.len()).collect().item())


def _metadata(file: str, kind: str) -> str | bytes:
    if kind == "parquet":
        return pl.read_parquet_metadata(file)["d22kit"]
    system, name = storage(file) if "://" in file else (LocalFileSystem(), file)
    with system.open_input_file(name) as source, pa.ipc.open_file(source) as arrow:
        metadata: dict[bytes, bytes] = arrow.schema.metadata
        return metadata[b"d22kit"]


def _contradicted(package: Package) -> Iterator[str]:
    """Hold the description against what the files say of themselves."""
    for file, part in package.files.items():
        if part["format"] not in ("parquet", "arrow"):
            continue
        inside = json.loads(_metadata(file, part["format"]))
        differing = [
            name
            for name, value in inside.items()
            if name not in ("rows", "schema") and package.about.get(name) != value
        ]
        if differing:
            yield f"{file} and its description differ in {', '.join(differing)}."
