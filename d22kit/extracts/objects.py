"""An extract in object storage: its objects are put one by one; where one cannot be put, all is as it was."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path, PurePosixPath
from threading import Event

from pyarrow import memory_map
from pyarrow.fs import FileSelector, FileSystem, FileType

from d22kit.errors import ExtractError
from d22kit.packages import storage

__all__ = ["names_at", "upload"]


def names_at(url: str) -> list[str]:
    """Return the names of the objects under a URL, or of the one at it."""
    system, root = storage(url)
    if system.get_file_info(root).type == FileType.File:
        return [url.rpartition("/")[2]]
    return _names(system, root)


def _names(system: FileSystem, root: str) -> list[str]:
    under = system.get_file_info(FileSelector(root, allow_not_found=True, recursive=True))
    return [info.path.removeprefix(f"{root}/") for info in under if info.type == FileType.File]


def upload(room: Path, names: Sequence[str], place: str, old: Sequence[str]) -> None:
    """Put files beside and under a place in their order; a Ctrl-C takes effect between two of them.

    Parameters
    ----------
    room, names
        The directory of the files, and their paths in it.
    place
        The URL of the extract.
    old
        Objects that are there: those not among `names` are removed in the end. One that is not told of may be
        replaced by the last file alone, which is one act.

    Raises
    ------
    OSError
        Where an object cannot be put; all is as it was.
    ExtractError
        Where it is not; says where lies what was there.
    """
    stop = Event()
    # In a thread of its own, which no Ctrl-C parts.
    with ThreadPoolExecutor(1) as beside:
        try:
            done = beside.submit(_Upload(place, old).run, room, names, stop)
            while not done.done():
                # An endless wait is not parted by Ctrl-C where a library handles signals.
                wait([done], timeout=0.1)
            done.result()
        except BaseException:
            stop.set()
            raise


class _Upload:
    def __init__(self, place: str, old: Sequence[str]) -> None:
        around, _, name = place.rpartition("/")
        self._place, self._old = place, old
        self._system, self._root = storage(around)
        kept = f".{name}.{uuid.uuid4().hex[:8]}.before"
        self._kept, self._told = f"{self._root}/{kept}", f"{around}/{kept}"
        self._saved: list[str] = []
        self._put: list[str] = []

    def run(self, room: Path, names: Sequence[str], stop: Event) -> None:
        try:
            for name in self._old:
                self._system.copy_file(f"{self._root}/{name}", f"{self._kept}/{name}")
                self._saved.append(name)
            for name in names:
                if stop.is_set():
                    raise InterruptedError("it was interrupted")
                self._write(room / name, f"{self._root}/{name}")
                self._put.append(name)
            self._remove(set(self._old).difference(names))
        except BaseException as error:
            self._restore(error)
            raise
        # All is done, whether or not these can be removed.
        with suppress(OSError):
            self._forget()

    def _write(self, source: Path, target: str) -> None:
        # As it is: left to itself, PyArrow compresses what is called .gz once more.
        stream = self._system.open_output_stream(target, compression=None)
        with memory_map(str(source)) as file, stream:
            stream.write(file.read_buffer())

    def _restore(self, error: BaseException) -> None:
        try:
            for name in self._saved:
                self._system.copy_file(f"{self._kept}/{name}", f"{self._root}/{name}")
            self._remove(set(self._put).difference(self._saved))
            self._forget()
        except OSError:
            before = f" What was there before lies in {self._told}/." if self._saved else ""
            raise ExtractError(
                f"The extract {self._place} could not be written, and a part of it may be left there: "
                f"{error}.{before} Write it again with overwrite=True (--overwrite)."
            ) from error

    def _remove(self, names: Collection[str]) -> None:
        for name in names:
            self._system.delete_file(f"{self._root}/{name}")
        folders = {str(folder) for name in names for folder in PurePosixPath(name).parents[:-1]}
        for folder in sorted(folders, reverse=True):
            # PyArrow puts an empty object in place of a directory that it empties.
            if not _names(self._system, f"{self._root}/{folder}"):
                self._system.delete_dir(f"{self._root}/{folder}")

    def _forget(self) -> None:
        if _names(self._system, self._kept):
            self._system.delete_dir(self._kept)
