"""What a power loss may leave of a table's log: an entry or a checkpoint that has its name, but not its content."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import filelock
import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from d22kit.durable import sync_path

__all__ = ["open_table"]

log = logging.getLogger("d22kit")

ENTRY, CHECKPOINT, POINTER = "[0-9]" * 20 + ".json", "*.checkpoint.parquet", "_last_checkpoint"


def open_table(root: str, uri: str) -> DeltaTable:
    """Open a store's table, without its last commit or checkpoint where a power loss left them in pieces.

    Both were written in the moments before the power went, since a commit waits until the one before it is on the
    disk. The pages of the commit still lie in the staging files, and a checkpoint only repeats the entries.

    Raises
    ------
    TableNotFoundError, DeltaError, OSError
        Where there is no table, or none that can be read.
    """
    try:
        table = DeltaTable(uri)
        trouble: DeltaError | OSError = DeltaError("its last log entry is in pieces")
        if "://" in root or _lines(Path(uri, "_delta_log", f"{table.version():020}.json")):
            return table
    except TableNotFoundError:
        raise
    except (DeltaError, OSError) as error:
        trouble = error
    if "://" in root or not _undo(Path(root), Path(uri, "_delta_log")):
        raise trouble
    return DeltaTable(uri)


def _undo(root: Path, folder: Path) -> bool:
    """Rename what is in pieces, and return whether anything was: never while another process writes."""
    try:
        with filelock.FileLock(root / ".lock", timeout=0):
            torn = list(_torn(folder))
            for path in torn:
                path.replace(f"{path}.torn")
            sync_path(folder)
    except (OSError, NotImplementedError):  # in use, or not ours to write
        return False
    for path in torn:
        log.warning("A power loss left %s in pieces; it is called .torn now. Sync again.", path)
    return bool(torn)


def _torn(folder: Path) -> Iterator[Path]:
    undone = [entry for entry in sorted(folder.glob(ENTRY))[-1:] if not _lines(entry)]
    for checkpoint in sorted(folder.glob(CHECKPOINT))[-1:]:
        if not _table(checkpoint) or any(checkpoint.name.startswith(entry.stem) for entry in undone):
            undone.append(checkpoint)
    yield from undone
    pointer = folder / POINTER
    if pointer.exists() and (undone or not _lines(pointer)):
        yield pointer


def _lines(path: Path) -> bool:
    """Whether a file, if it is there, holds one whole JSON value in each line, and at least one."""
    try:
        return bool([json.loads(line) for line in path.read_bytes().splitlines()])
    except FileNotFoundError:
        return True
    except ValueError:
        return False


def _table(path: Path) -> bool:
    try:
        pl.read_parquet(path)
    except pl.exceptions.PolarsError:
        return False
    return True
