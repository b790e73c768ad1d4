"""Where an extract appears: whole or not at all, on a disk or in object storage."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import filelock

from d22kit.config import path_text, store_root
from d22kit.errors import ExtractError, InputError
from d22kit.extracts.objects import names_at, upload
from d22kit.packages import DESCRIPTOR, Package, formats_known, suffix, turn
from d22kit.store import Store

__all__ = ["README", "SCHEMA", "Target", "strangers"]

SCHEMA, README = ".schema.json", ".README.md"
_LOCK = ".lock"

PARTS = ("conversations", "quarantine", "staging")
"""Directories of a store."""


@dataclass(frozen=True)
class Target:
    """The file or directory that an extract is to be.

    Parameters
    ----------
    place
        Its absolute path or URL.
    suffix
        The known suffix of a file; nothing for a directory.
    overwrite
        Whether to replace what is there.
    """

    place: str
    suffix: str
    overwrite: bool

    @classmethod
    def of(cls, path: str | os.PathLike[str], by: Sequence[str], *, overwrite: bool) -> Target:
        """Read a path.

        Raises
        ------
        InputError
            Where its suffix is unknown, or contradicts the partition.
        """
        text, place = path_text(path), store_root(path)
        ending = suffix(place)
        if by and ending not in ("", ".parquet"):
            raise InputError(f"partition_by makes a directory of Parquet files; {text!r} ends in {ending!r}.")
        if by or text.endswith(("/", os.sep)):
            return cls(place, "", overwrite)
        if not ending and "." in place.rpartition("/")[2].strip("."):
            raise InputError(f"{text!r} has no known suffix. There are: {formats_known()}.")
        return cls(place, ending, overwrite)

    @property
    def folder(self) -> bool:
        """Whether it is a directory."""
        return not self.suffix

    @property
    def name(self) -> str:
        """Its last part."""
        return self._path.name

    @property
    def local(self) -> bool:
        """Whether it lies on a disk of this machine."""
        return "://" not in self.place

    def check(self) -> None:
        """Refuse a place where something is that may not be replaced.

        Raises
        ------
        ExtractError
            Says what is there.
        """
        if self.local and not self._path.parent.is_dir():
            raise ExtractError(
                f"There is no directory {self._path.parent}. Make it first, or name another place."
            )
        if self.local and self._path.is_dir() != self.folder and self._path.exists():
            kind = "directory" if self._path.is_dir() else "file"
            raise ExtractError(f"{self.place} is a {kind} already. Name another place.")
        if self.local and Path.cwd().is_relative_to(self._path):
            raise ExtractError(f"{self.place} is the working directory, or holds it. Name another place.")
        if store := _store_around(self.place):
            raise ExtractError(f"{self.place} is of the store at {store}, or lies in it. Name another place.")
        self._refuse_taken()
        if self.folder and self._taken() and (foreign := strangers(self.place, Package.find(self.place))):
            raise ExtractError(
                f"{self.place} holds {foreign[0]!r}, which is of no extract: it is not overwritten. Name another place."
            )

    @contextmanager
    def room(self) -> Iterator[Path]:
        """Give a directory to make the extract in; what is left in it is removed."""
        # Beside the target, so that moving it there is one rename.
        base = self._path.parent if self.local else Path(tempfile.gettempdir())
        for left in base.glob(f".{glob.escape(self.name)}.{'[0-9a-f]' * 8}.tmp"):
            _sweep(left)
        room = base / f".{self.name}.{uuid.uuid4().hex[:8]}.tmp"
        room.mkdir(mode=0o700)
        try:
            with filelock.FileLock(room / _LOCK):
                yield room
        finally:
            shutil.rmtree(room, ignore_errors=True)

    def publish(self, room: Path) -> None:
        """Make what lies in the room the extract: its description first, so that where rows are, they are described."""
        if not self.local:
            self._refuse_taken()
            self._upload(room)
            return
        # One at a time, or the description of one could lie beside the rows of another.
        mine = turn(self.place)
        with filelock.FileLock(mine):
            try:
                self._refuse_taken()  # by another extract, made meanwhile
                self._move(room)
            finally:
                with suppress(OSError):  # Windows keeps what is open
                    mine.unlink()

    def _move(self, room: Path) -> None:
        beside = [path.name for path in sorted(room.iterdir()) if path.name not in (self.name, _LOCK)]
        before = room / "before"
        before.mkdir()
        for name in beside:
            if self._path.with_name(name).exists():
                shutil.copy2(self._path.with_name(name), before / name)
        try:
            for name in beside:
                (room / name).replace(self._path.with_name(name))
            self._put(room)
        except BaseException:
            for name in beside if (room / self.name).exists() else ():  # else all was done
                self._path.with_name(name).unlink(missing_ok=True)
                if (before / name).exists():
                    (before / name).replace(self._path.with_name(name))
            raise

    @property
    def _path(self) -> Path:
        return Path(self.place)

    def _taken(self, name: str = "") -> bool:
        """Whether something is there, or under its name with an ending."""
        place = self.place + name
        return os.path.lexists(place) if self.local else bool(names_at(place))

    def _refuse_taken(self) -> None:
        if self.overwrite:
            return
        beside = [DESCRIPTOR, *((SCHEMA, README) if self.folder else ())]
        with suppress(ExtractError):
            if Package.find(self.place):
                beside = []  # of ours; alone they are what a killed extract left
        for ending in ("", *beside):
            if self._taken(ending):
                raise ExtractError(
                    f"{self.place}{ending} is there already. Name another place, or say overwrite=True (--overwrite)."
                )

    def _put(self, room: Path) -> None:
        made, old = room / self.name, room / "old"
        try:
            if self.folder and self._path.exists():
                # No system renames a directory onto another one: for an instant there is none.
                self._path.rename(old)
            made.replace(self._path)
        except BaseException:
            if old.exists() and made.exists():
                old.rename(self._path)
            raise

    def _upload(self, room: Path) -> None:
        found = (path.relative_to(room).as_posix() for path in room.rglob("*") if path.is_file())
        # Rows last, so that where they are, they are described.
        files = sorted(found, key=lambda name: (name.partition("/")[0] == self.name, name))
        old = [f"{self.name}/{name}" for name in names_at(self.place)] if self.folder else []
        old += [self.name + ending for ending in (DESCRIPTOR, SCHEMA, README) if self._taken(ending)]
        upload(room, [name for name in files if name != _LOCK], self.place, old)


def _store_around(place: str) -> str | None:
    """Return the store to whose own files a place belongs; beside them there is room for extracts."""
    parts = (place if "://" in place else Path(place).resolve().as_posix()).split("/")
    roots = ("/".join(parts[:at]) for at, part in enumerate(parts) if part in PARTS)
    return next(filter(Store.exists, roots), None)


def _sweep(room: Path) -> None:
    """Remove the room of an extract whose process was killed; a living one holds the lock in it."""
    if not (room / _LOCK).exists():
        return  # made this instant
    try:
        with filelock.FileLock(room / _LOCK, timeout=0):
            pass
    except (filelock.Timeout, OSError):
        return
    shutil.rmtree(room, ignore_errors=True)


def strangers(place: str, package: Package | None) -> list[str]:
    """Return the files in a directory that its data package does not know."""
    known = set(package.files) if package else set()
    if "://" in place:
        found = names_at(place)
    else:
        found = [
            path.relative_to(place).as_posix()
            for path in Path(place).rglob("*")
            if path.is_symlink() or not path.is_dir()
        ]
    return sorted(name for name in found if f"{place}/{name}" not in known)
