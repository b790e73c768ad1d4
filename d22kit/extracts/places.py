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
_LOCK, _BEFORE, _OLD = ".lock", "before", "old"

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
        parts = place.partition("://")[2].split("/")
        if "://" in place and (len(parts) < 2 or {"", ".", ".."}.intersection(parts) or "?" in place):
            raise InputError(
                f"{text!r} names no object that every reader finds. Give a bucket and a name in it, without '?' and "
                "empty parts, as in s3://bucket/mail.parquet."
            )
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
        if self._rooms():
            with self._turn():
                self._sweep()
        if self.local and self._holds_working_directory():
            raise ExtractError(f"{self.place} is the working directory, or holds it. Name another place.")
        if store := _store_around(self.place):
            raise ExtractError(f"{self.place} is of the store at {store}, or lies in it. Name another place.")
        self._refuse()

    @contextmanager
    def room(self) -> Iterator[Path]:
        """Give a directory to make the extract in; what is left in it is removed."""
        room = self._base / f".{self.name}.{uuid.uuid4().hex[:8]}.tmp"
        room.mkdir(mode=0o700)
        try:
            with filelock.FileLock(room / _LOCK):
                yield room
        finally:
            shutil.rmtree(room, ignore_errors=True)

    def publish(self, room: Path) -> None:
        """Make what lies in the room the extract: its description first, so that where rows are, they are described."""
        with self._turn():
            self._sweep()
            self._refuse()  # what appeared meanwhile
            if self.local:
                self._move(room)
            else:
                self._upload(room)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One at a time, or the description of one could lie beside the rows of another."""
        if not self.local:
            yield
            return
        mine = turn(self.place)
        with filelock.FileLock(mine):
            try:
                yield
            finally:
                with suppress(OSError):  # Windows keeps what is open
                    mine.unlink()

    def _rooms(self) -> list[Path]:
        return [*self._base.glob(f".{glob.escape(self.name)}.{'[0-9a-f]' * 8}.tmp")]

    def _sweep(self) -> None:
        """Remove the rooms of extracts whose processes were killed; a living one holds the lock in it."""
        for room in self._rooms():
            if not (room / _LOCK).exists():
                continue  # made this instant
            try:
                with filelock.FileLock(room / _LOCK, timeout=0):
                    self._restore(room)
            except (filelock.Timeout, OSError):
                continue
            shutil.rmtree(room, ignore_errors=True)

    def _move(self, room: Path) -> None:
        before = room / _BEFORE
        before.mkdir()
        for name in self._beside:
            if self._path.with_name(name).exists():
                shutil.copy2(self._path.with_name(name), before / name)
        try:
            for name in self._beside:
                (room / name).replace(self._path.with_name(name))
            if self.folder and self._path.exists():
                # No system renames a directory onto another one: for an instant there is none.
                self._path.rename(room / _OLD)
            (room / self.name).replace(self._path)
        except BaseException:
            self._restore(room)
            raise

    def _restore(self, room: Path) -> None:
        """Put back what was replaced, where it did not come to the end."""
        if not (room / _BEFORE).exists() or not (room / self.name).exists():
            return  # not begun, or done
        for name in self._beside:
            there, before = self._path.with_name(name), room / _BEFORE / name
            if (room / name).exists():
                continue  # not replaced yet
            if before.exists():
                before.replace(there)
            else:
                there.unlink(missing_ok=True)
        if (room / _OLD).exists():
            (room / _OLD).rename(self._path)

    @property
    def _base(self) -> Path:
        # Beside the target, so that moving it there is one rename.
        return self._path.parent if self.local else Path(tempfile.gettempdir())

    @property
    def _beside(self) -> list[str]:
        """The files of its description."""
        return [self.name + ending for ending in (DESCRIPTOR, *((SCHEMA, README) if self.folder else ()))]

    @property
    def _path(self) -> Path:
        return Path(self.place)

    def _taken(self, name: str = "") -> bool:
        """Whether something is there, or under its name with an ending."""
        place = self.place + name
        return os.path.lexists(place) if self.local else bool(names_at(place))

    def _refuse(self) -> None:
        """Refuse to replace what is there, unless told to, and what is of no extract in any case."""
        if self.local and self._path.is_dir() != self.folder and self._path.exists():
            kind = "directory" if self._path.is_dir() else "file"
            raise ExtractError(f"{self.place} is a {kind} already. Name another place.")
        if self.folder and self._taken() and (foreign := strangers(self.place, self._described())):
            raise ExtractError(
                f"{self.place} holds {foreign[0]!r}, which is of no extract: it is not overwritten. Name another place."
            )
        # A description of ours that is alone a killed extract left.
        beside = [] if self._described() else [name.removeprefix(self.name) for name in self._beside]
        for ending in ("", *beside) if not self.overwrite else ():
            if self._taken(ending):
                raise ExtractError(
                    f"{self.place}{ending} is there already. Name another place, or say overwrite=True (--overwrite)."
                )

    def _holds_working_directory(self) -> bool:
        with suppress(FileNotFoundError):  # it was removed
            return Path.cwd().is_relative_to(self._path)
        return False

    def _described(self) -> Package | None:
        try:
            return Package.find(self.place)
        except ExtractError:
            return None

    def _upload(self, room: Path) -> None:
        found = (path.relative_to(room).as_posix() for path in room.rglob("*") if path.is_file())
        # Rows last, so that where they are, they are described.
        files = sorted(found, key=lambda name: (name.partition("/")[0] == self.name, name))
        old = [f"{self.name}/{name}" for name in names_at(self.place)] if self.folder else []
        old += [name for name in self._beside if self._taken(name.removeprefix(self.name))]
        upload(room, [name for name in files if name != _LOCK], self.place, old)


def _store_around(place: str) -> str | None:
    """Return the store to whose own files a place belongs; beside them there is room for extracts."""
    parts = (place if "://" in place else Path(place).resolve().as_posix()).split("/")
    roots = ("/".join(parts[:at]) for at, part in enumerate(parts) if part in PARTS)
    return next(filter(Store.exists, roots), None)


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
