"""Fetched pages, durable between commits: small files that a killed sync leaves for the next one."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from d22kit.errors import StoreError
from d22kit.frames import Quarantined
from d22kit.state import NEVER
from d22kit.store import Store, sync_path, write_durably
from d22kit.times import instant, iso
from d22kit.windows import Window

__all__ = ["Batch", "Staging"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Pages fetched together: their rows in the order of arrival, and where their windows stand after them.

    The claim and the floor are those of the plan they belong to, as in `State`. Once it is staged a batch only
    knows how many rows it has, and `Staging.rows` reads them: what waits for a commit takes no memory.
    """

    rows: pl.DataFrame
    quarantined: tuple[Quarantined, ...]
    windows: tuple[Window, ...]
    claim: datetime | None = None
    floor: datetime | None = NEVER
    number: int = 0
    height: int = 0


class Staging:
    """The staging files of a local store; object storage has none, and its pages wait in memory.

    Parameters
    ----------
    store
        The store they belong to.
    committed
        Number of the last file whose rows are in the table: it and those before it are left over.
    """

    def __init__(self, store: Store, committed: int) -> None:
        self._folder = Path(store.root, "staging") if store.local else None
        self._number = committed
        for path in self._files():
            if int(path.stem) <= committed or path.suffix == ".part":
                path.unlink()

    def put(self, batch: Batch) -> Batch:
        """Make a batch durable, and return it with its number and height.

        Raises
        ------
        StoreError
            Where the disk refuses; what was staged and committed before stays.
        """
        self._number += 1
        if self._folder is not None:
            path = _path(self._folder, self._number)
            part = path.with_suffix(".part")
            try:
                write_durably(part, _serialise(batch))
                part.replace(path)
                sync_path(self._folder)
            except OSError as error:
                part.unlink(missing_ok=True)
                raise StoreError(
                    f"Fetched pages could not be written to {self._folder}: {error.strerror or error}. What was "
                    "fetched before is kept; make room or mend the permission, and sync again."
                ) from error
        return _staged(replace(batch, number=self._number), keep=self._folder is None)

    def rows(self, batch: Batch) -> pl.DataFrame:
        """Return the rows of a staged batch."""
        return batch.rows if self._folder is None else _deserialise(_path(self._folder, batch.number)).rows

    def left_over(self) -> list[Batch]:
        """Return the batches a killed sync left, in the order of their arrival."""
        paths = self._files()
        batches = [_staged(_deserialise(path), keep=False) for path in paths]
        self._number = batches[-1].number if batches else self._number
        return batches

    def clear(self, committed: int) -> None:
        """Delete the files whose rows the table holds now."""
        for path in self._files():
            if int(path.stem) <= committed:
                path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        if self._folder is None or not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if path.suffix in (".arrow", ".part"))


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:09}.arrow"


def _staged(batch: Batch, *, keep: bool) -> Batch:
    return replace(batch, rows=batch.rows if keep else batch.rows.clear(), height=batch.rows.height)


def _serialise(batch: Batch) -> memoryview:
    about = {
        "windows": [window.to_json() for window in batch.windows],
        "quarantined": [asdict(row) for row in batch.quarantined],
        "claim": batch.claim and iso(batch.claim),
        "floor": batch.floor and iso(batch.floor),
    }
    content = io.BytesIO()
    # One line of JSON, then the rows: Arrow's own metadata would take a detour that costs four times as much.
    content.write(json.dumps(about).encode() + b"\n")
    batch.rows.write_ipc_stream(content)
    return content.getbuffer()


def _deserialise(path: Path) -> Batch:
    line, _, rows = path.read_bytes().partition(b"\n")
    about: dict[str, Any] = json.loads(line)
    return Batch(
        pl.read_ipc_stream(rows),
        tuple(Quarantined(**row) for row in about["quarantined"]),
        tuple(Window.from_json(window) for window in about["windows"]),
        instant(about["claim"]),
        instant(about["floor"]),
        int(path.stem),
    )
