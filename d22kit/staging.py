"""Fetched pages, durable between commits: small files that a killed sync leaves for the next one."""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from d22kit.durable import sync_path
from d22kit.errors import StoreError
from d22kit.frames import Quarantined
from d22kit.schema import FRAME
from d22kit.state import NEVER
from d22kit.store import Store
from d22kit.times import instant, iso
from d22kit.windows import Window

__all__ = ["Batch", "Staging"]

FULL = 8 << 20
"""Bytes after which a new file is begun, so that one can go once its rows are in the table."""
LONG = 1_000
"""Bytes of a row, on average, past which a staged batch lets its rows go; usual ones have less than a tenth."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Pages fetched together: their rows in the order of arrival, and where their windows stand after them.

    The claim and the floor are those of the plan they belong to, as in `State`. Once it is staged a batch of long
    rows only knows how many it has, and `Staging.rows` reads them: what waits for a commit takes little memory.
    """

    rows: pl.DataFrame
    quarantined: tuple[Quarantined, ...]
    windows: tuple[Window, ...]
    claim: datetime | None = None
    floor: datetime | None = NEVER
    number: int = 0
    height: int = 0
    place: tuple[Path, int, int] | None = None


class Staging:
    """The staging files of a local store; object storage has none, and its pages wait in memory.

    A file holds several batches, each a line of JSON with a length and a checksum, then the rows as Arrow. A kill
    or a power cut leaves at most the last one in pieces, and that is as if it had never been fetched. A file's
    name is the number of its first batch.

    Parameters
    ----------
    store
        The store they belong to.
    committed
        Number of the last batch whose rows are in the table: it and those before it are left over.
    """

    def __init__(self, store: Store, committed: int) -> None:
        self._folder = Path(store.root, "staging") if store.local else None
        self._committed = self._number = committed
        self._path: Path | None = None

    def put(self, batch: Batch) -> Batch:
        """Make a batch durable, and return it with its number and height.

        Raises
        ------
        StoreError
            Where the disk refuses; what was staged and committed before stays.
        """
        self._number += 1
        batch = replace(batch, number=self._number, height=batch.rows.height)
        if self._folder is None:
            return batch
        try:
            batch = replace(batch, place=self._append(self._folder, batch))
        except OSError as error:
            raise StoreError(
                f"Fetched pages could not be written to {self._folder}: {error.strerror or error}. What was "
                "fetched before is kept; make room or mend the permission, and sync again."
            ) from error
        long = batch.rows.estimated_size() > LONG * batch.height
        return replace(batch, rows=batch.rows.clear()) if long else batch

    def rows(self, batch: Batch) -> pl.DataFrame:
        """Return the rows of a staged batch."""
        if batch.place is None or batch.rows.height:
            return batch.rows
        path, start, length = batch.place
        with path.open("rb") as file:
            file.seek(start)
            return pl.read_ipc_stream(file.read(length))

    def left_over(self) -> list[Batch]:
        """Return the batches a killed sync left, in the order of their arrival."""
        found = [batch for path in self._files() for batch in _batches(path)]
        self._number = max((batch.number for batch in found), default=self._number)
        self.clear(self._committed)
        return [batch for batch in found if batch.number > self._committed]

    def clear(self, committed: int) -> None:
        """Delete the files whose rows the table holds now."""
        if self._number <= committed:
            self._path = None
        # A file ends before the next one begins, and the last one with the last batch.
        files = self._files()
        nexts = [*map(_first, files[1:]), self._number + 1]
        for path, following in zip(files, nexts[: len(files)], strict=True):
            if following <= committed + 1:
                path.unlink()

    def _append(self, folder: Path, batch: Batch) -> tuple[Path, int, int]:
        begun = self._path is not None and self._path.stat().st_size < FULL
        path = self._path if self._path is not None and begun else folder / f"{batch.number:09}.arrow"
        head, rows = _serialise(batch)
        folder.mkdir(exist_ok=True)
        with path.open("ab" if begun else "wb") as file:
            file.write(head)
            start = file.tell()
            file.write(rows)
            file.flush()
            os.fsync(file.fileno())
        if not begun:
            for place in (folder, folder.parent):
                sync_path(place)
        self._path = path
        return path, start, len(rows)

    def _files(self) -> list[Path]:
        if self._folder is None or not self._folder.is_dir():
            return []
        return sorted(self._folder.glob("*.arrow"))


def _first(path: Path) -> int:
    return int(path.stem)


def _serialise(batch: Batch) -> tuple[bytes, memoryview]:
    content = io.BytesIO()
    batch.rows.write_ipc_stream(content, compression="lz4")  # an eighth of the bytes, for the same time
    rows = content.getbuffer()
    about = {
        "windows": [window.to_json() for window in batch.windows],
        "quarantined": [asdict(row) for row in batch.quarantined],
        "claim": batch.claim and iso(batch.claim),
        "floor": batch.floor and iso(batch.floor),
        "number": batch.number,
        "height": batch.height,
        "bytes": len(rows),
        "crc32": zlib.crc32(rows),
    }
    return json.dumps(about).encode() + b"\n", rows


def _batches(path: Path) -> Iterator[Batch]:
    """Give the batches of a file up to the first that is not whole."""
    with path.open("rb") as file:
        while line := file.readline():
            try:
                about: dict[str, Any] = json.loads(line)
            except ValueError:
                return
            start = file.tell()
            rows = file.read(about["bytes"])
            if len(rows) < about["bytes"] or zlib.crc32(rows) != about["crc32"]:
                return
            yield Batch(
                FRAME.to_frame(),
                tuple(Quarantined(**row) for row in about["quarantined"]),
                tuple(Window.from_json(window) for window in about["windows"]),
                instant(about["claim"]),
                instant(about["floor"]),
                about["number"],
                about["height"],
                (path, start, len(rows)),
            )
