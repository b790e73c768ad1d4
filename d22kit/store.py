"""Where a store's parts lie, whose it is, and who may write to it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

import arro3.core as arro
import filelock
import polars as pl
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from d22kit.config import store_root
from d22kit.display import plain
from d22kit.durable import sync_paths, write_whole
from d22kit.errors import (
    InputError,
    StoreError,
    StoreFormatError,
    StoreLockedError,
    StoreMismatchError,
    StoreNotFoundError,
    VersionNotFoundError,
)
from d22kit.schema import FORMAT, FRAME, KEY, PARTITION, STORED, VOCABULARY
from d22kit.state import Counts, State, describe, metadata
from d22kit.times import TimeLike, instant, iso
from d22kit.torn import open_table
from d22kit.windows import EPOCH

if TYPE_CHECKING:
    from pyarrow.fs import PyFileSystem

__all__ = ["OURS", "Store", "scan_files"]

OURS = "rows-"
"""How names of files begin whose vocabulary columns are noted as categories; other writers' are strings."""
_FORMAT, _OWNER = "d22kit.format", "d22kit.owner"
_SETTINGS = {
    "delta.logRetentionDuration": "interval 3650 days",
    "delta.deletedFileRetentionDuration": "interval 30 days",
    "delta.checkpointInterval": "25",  # a commit reads the entries since: at 100, the default, it took twice as long
}
_HOOKS = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)


@dataclass
class Store:
    """One store: a Delta table of rows, and beside it the quarantine, the staging files and the lock."""

    root: str
    table: DeltaTable = field(repr=False)

    @staticmethod
    def exists(data: str | os.PathLike[str] | None = None) -> bool:
        """Whether there is a store at that place."""
        root = store_root(data)
        try:
            return DeltaTable.is_deltatable(_table_uri(root))
        except (DeltaError, OSError) as error:
            raise StoreError(f"The place {root} cannot be reached: {plain(error)}") from error

    @classmethod
    def open(cls, data: str | os.PathLike[str] | None = None) -> Store:
        """Open a store.

        Raises
        ------
        StoreNotFoundError
            Where there is none.
        StoreFormatError
            Where the table there is none of d22kit's, cannot be read, or was written by a newer d22kit.
        """
        root = store_root(data)
        missing = StoreNotFoundError(
            f"There is no store at {root}. Run 'd22kit sync' (or d22kit.sync()) to make one there, or name another "
            "place with data=... or D22KIT_DATA."
        )
        if not cls.exists(root):
            raise missing
        try:
            store = cls(root, open_table(root, _table_uri(root)))
        except TableNotFoundError:
            raise missing from None
        except (DeltaError, OSError) as error:
            raise StoreFormatError(
                f"The table at {_table_uri(root)} cannot be read: {plain(error)}"
            ) from error
        store._check_format()
        return store

    @classmethod
    def create(cls, data: str | os.PathLike[str] | None, owner: str) -> Store:
        """Create an empty store that belongs to `owner` (service root and lender)."""
        root = store_root(data)
        try:
            if "://" not in root:
                Path(root).mkdir(parents=True, exist_ok=True)
            empty = pl.Schema({**STORED, PARTITION: pl.Date()}).to_frame()
            table = DeltaTable.create(
                _table_uri(root),
                DeltaSchema.from_arrow(arro.Table.from_arrow(empty).schema),
                partition_by=[PARTITION],
                description="Conversation rows of D22, one per public_id, newest updated_at; kept by d22kit.",
                configuration={**_SETTINGS, _FORMAT: str(FORMAT), _OWNER: owner},
                raise_if_key_not_exists=False,
                commit_properties=CommitProperties(custom_metadata=metadata(State(), Counts(), "create")),
            )
        except (DeltaError, OSError) as error:
            if isinstance(error, DeltaError) and cls.exists(root):  # another process made it meanwhile
                store = cls.open(root)
                store.check_owner(owner)
                return store
            raise StoreError(
                f"No store can be made at {root}: {plain(error)}. Is the place writable?"
            ) from error
        store = cls(root, table)
        if store.local:
            store._make_durable()
            sync_paths([Path(_table_uri(root))])
        return store

    @property
    def local(self) -> bool:
        """Whether the store lies on a disk of this machine."""
        return "://" not in self.root

    @property
    def owner(self) -> str:
        """The service root and lender the store belongs to."""
        return self.table.metadata().configuration.get(_OWNER, "")

    def check_owner(self, owner: str) -> None:
        """Refuse a service or lender the store does not belong to.

        Raises
        ------
        StoreMismatchError
            Where the store belongs to another.
        """
        if self.owner != owner:
            raise StoreMismatchError(
                f"The store at {self.root} belongs to {self.owner}, and you are syncing {owner}. Two lenders in "
                "one store would be counted together: name another place with data=... or D22KIT_DATA."
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store's lock, so that one process writes at a time; object storage has no lock.

        Raises
        ------
        StoreLockedError
            Where another process holds it; says which.
        """
        if not self.local:
            yield
            return
        path = Path(self.root, ".lock")
        lock = filelock.FileLock(path, timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise StoreLockedError(
                f"Another process is writing to the store at {self.root} ({_holder(path)}). Reading goes on "
                "meanwhile; sync again when it is done. The lock ends with its process: nothing is to be deleted."
            ) from None
        except (OSError, NotImplementedError) as error:
            raise StoreError(f"The store at {self.root} cannot be written: {error}.") from error
        holder = path.with_name(".lock-holder")
        try:
            with suppress(OSError):  # a full disk: the lock holds without its note
                holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")
            yield
        finally:
            with suppress(OSError):
                holder.unlink(missing_ok=True)
            lock.release()

    def state(self) -> State:
        """Return how far the store is; commits by other writers are looked past."""
        for limit in (1, 50, None):
            for commit in self.history(limit):
                if state := describe(commit)[2]:
                    return state
        return State()

    def history(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Return what the commits up to this version noted, the newest first."""
        table = self.table
        while True:
            # delta-rs lists the newest commits of all, and numbers them down from the version that was opened.
            ahead = table.version() - self.table.version()
            commits = table.history(limit and limit + ahead)
            before, table = table.version(), DeltaTable(_table_uri(self.root))
            if table.version() == before:
                return commits[ahead:]

    def at(self, version: int | None = None, as_of: TimeLike | None = None) -> Store:
        """Return the store as one of its versions left it.

        Raises
        ------
        VersionNotFoundError
            Where the store has no such version.
        """
        if version is None and as_of is None:
            return self
        try:
            version = version if version is None else index(version)
        except TypeError:
            raise InputError(f"version={version!r} is no version: give a whole number.") from None
        moment = instant(as_of, "as_of")
        try:
            table = DeltaTable(_table_uri(self.root))
            if moment is not None:
                # By the times that `versions` shows; the log files' own lie some moments later.
                at = (moment - EPOCH) // timedelta(milliseconds=1)
                known = [commit["version"] for commit in self.history() if commit["timestamp"] <= at]
                if not known:
                    raise VersionNotFoundError(
                        f"as_of={iso(moment)} lies before the store's first version. See d22kit.versions()."
                    )
                version = max(known)
            assert version is not None
            table.load_as_version(version)
        except (DeltaError, ValueError, OverflowError) as error:
            raise VersionNotFoundError(
                f"The store at {self.root} has no version {version}; it has 0 to {self.table.version()}. "
                "See d22kit.versions()."
            ) from error
        return replace(self, table=table)

    def files(self) -> pl.DataFrame:
        """Return the live data files: `path` (absolute), `name`, `rows`, `bytes`, `low`, `high` (least and
        greatest key; null where unknown) and the partition's date.
        """
        actions = pl.DataFrame(self.table.get_add_actions(flatten=True))
        have = set(actions.columns)
        return actions.select(
            pl.format("{}/{}", pl.lit(_table_uri(self.root)), "path").alias("path"),
            pl.col("path").alias("name"),
            pl.col("num_records").cast(pl.Int64).alias("rows"),
            pl.col("size_bytes").cast(pl.Int64).alias("bytes"),
            *(
                (pl.col(f"{bound}.{KEY}") if f"{bound}.{KEY}" in have else pl.lit(None, pl.String)).alias(
                    name
                )
                for bound, name in (("min", "low"), ("max", "high"))
            ),
            pl.col(f"partition.{PARTITION}").cast(pl.Date).alias(PARTITION),
        ).sort(PARTITION, "name")

    def check_kept(self, files: pl.DataFrame) -> None:
        """Refuse a version whose files were vacuumed away.

        Raises
        ------
        VersionNotFoundError
            Where one of its files is gone.
        """
        if not all(self._has(files)):
            raise VersionNotFoundError(
                f"Version {self.table.version()} of the store at {self.root} was vacuumed away, or a file of it was "
                "deleted: its rows cannot be read any more. Try another one: see d22kit.versions()."
            )

    def commit(self, actions: list[AddAction | RemoveAction], state: State, counts: Counts, act: str) -> int:
        """Make files and state one new version of the table, or none of it.

        Raises
        ------
        StoreLockedError
            Where another writer committed since this store was opened.
        """
        try:
            self.table.create_write_transaction(
                actions,
                mode="append",
                schema=self.table.schema(),
                partition_by=[PARTITION],
                # No retry: a retried commit would land on a table that its files were not made for.
                commit_properties=CommitProperties(metadata(state, counts, act), max_commit_retries=0),
                post_commithook_properties=_HOOKS,
            )
        except CommitFailedError as error:
            raise StoreLockedError(
                f"Another process committed to the store at {self.root} meanwhile. Nothing of this commit was "
                "written; sync again, one process at a time."
            ) from error
        except (DeltaError, OSError) as error:
            raise StoreError(
                f"The store at {self.root} could not be written: {plain(error)}. It is as it was."
            ) from error
        self.table.update_incremental()
        if self.local:
            self._make_durable()
        return self.table.version()

    def _has(self, files: pl.DataFrame) -> Iterator[bool]:
        if self.local:
            return map(os.path.exists, files["path"])
        place = self._remote()
        return (place.get_file_info(f"conversations/{name}").is_file for name in files["name"])

    def place(self, *parts: str) -> str:
        """Return the path or URL of a part of the store."""
        return "/".join((self.root, *parts))

    def note(self, name: str, value: dict[str, Any]) -> None:
        """Keep a few facts beside the table, as a JSON file that is there whole or not at all.

        Raises
        ------
        StoreError
            Where the place refuses.
        """
        content = json.dumps(value).encode()
        try:
            if self.local:
                write_whole(Path(self.root, name), content)
            else:
                self.upload(name, content)
        except (DeltaError, OSError) as error:
            raise StoreError(f"{name} could not be written under {self.root}: {error}.") from error

    def noted(self, name: str) -> dict[str, Any]:
        """Return what was noted, or nothing where it never was or cannot be read."""
        try:
            with self._remote().open_input_stream(name) as source:
                found = json.loads(source.read())
        except (DeltaError, OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def upload(self, name: str, content: bytes | memoryview) -> None:
        """Put a file under a store in object storage."""
        # What does not fit the stream's own buffer Arrow hands over in a form that delta-rs refuses.
        with self._remote().open_output_stream(name, buffer_size=len(content) + 1) as target:
            target.write(content)

    def _remote(self) -> PyFileSystem:
        from deltalake.fs import DeltaStorageHandler  # five megabytes that a local sync does without
        from pyarrow.fs import PyFileSystem

        return PyFileSystem(DeltaStorageHandler(self.root))

    def _make_durable(self) -> None:
        # delta-rs puts log entries and checkpoints in their places by atomic renames, and leaves the flush to the
        # system; a later entry on disk without an earlier one, or a checkpoint in pieces, would be no table.
        log = Path(_table_uri(self.root), "_delta_log")
        sync_paths([*log.glob(f"{self.table.version():020}*"), *log.glob("_last_checkpoint")])

    def _check_format(self) -> None:
        found = self.table.metadata().configuration.get(_FORMAT)
        if found is None:
            raise StoreFormatError(
                f"The Delta table at {_table_uri(self.root)} was not made by d22kit. Name another place."
            )
        if int(found) > FORMAT:
            raise StoreFormatError(
                f"The store at {self.root} has format {found}; this d22kit knows up to {FORMAT}. Upgrade d22kit "
                "with 'pip install -U d22kit'; nothing was changed."
            )


def scan_files(paths: list[str], path: str | None = None) -> pl.LazyFrame:
    """Return the rows of data files with the types of `schema.FRAME`, and each row's file in a column `path`."""
    ours = [file for file in paths if file.rpartition("/")[2].startswith(OURS)]
    others = sorted({*paths} - {*ours})  # a table that another tool has compacted
    parts = [_scan(ours, FRAME, path)] if ours else []
    if others:
        parts.append(_scan(others, STORED, path).with_columns(pl.col(VOCABULARY).cast(pl.Categorical)))
    return pl.concat(parts) if parts else FRAME.to_frame().lazy()


def _scan(paths: list[str], schema: pl.Schema, path: str | None) -> pl.LazyFrame:
    return pl.scan_parquet(paths, schema=schema, include_file_paths=path, hive_partitioning=False, glob=False)


def _table_uri(root: str) -> str:
    return f"{root}/conversations"


def _holder(path: Path) -> str:
    try:
        return path.with_name(".lock-holder").read_text()
    except OSError:
        return "unknown process"
