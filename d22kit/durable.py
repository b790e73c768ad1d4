"""Files and directory entries that are on the disk itself before a call returns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from d22kit.errors import StoreError

__all__ = ["sync_path", "sync_paths", "write_whole"]

FLUSHES = 8


def sync_path(path: Path) -> None:
    """Have the system put a file, or a directory's entries, on the disk itself."""
    if os.name == "nt" and path.is_dir():
        return  # Windows has no handle for a directory's entries, and needs none.
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_paths(files: Sequence[Path]) -> None:
    """Have the system put many files, then their names and those of their directories on the disk itself.

    Raises
    ------
    StoreError
        Where the disk refuses.
    """
    try:
        places = list({place for file in files for place in file.parents[:2]})
        with ThreadPoolExecutor(FLUSHES) as pool:
            for paths in (files, places):  # a name on the disk without its content would be a file in pieces
                # At once: a disk takes many flushes in about the time of one.
                list(pool.map(_sync_each, (paths[n::FLUSHES] for n in range(FLUSHES))))
    except OSError as error:
        raise StoreError(f"The disk did not take what was written: {error}. Sync again.") from error


def _sync_each(paths: Sequence[Path]) -> None:
    for path in paths:
        sync_path(path)


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file that is there whole or not at all, and on the disk itself before this returns."""
    if not path.parent.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        sync_path(path.parent.parent)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_path(path.parent)
