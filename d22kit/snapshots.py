"""What a store holds and held: its status, versions, changes and quarantine, and how long versions are kept."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path

import msgspec
import polars as pl
from deltalake.exceptions import DeltaError

from d22kit.display import Facts, number, plain, size
from d22kit.errors import InputError, StoreError
from d22kit.frames import newest
from d22kit.schema import KEY, NAMES, STORED, VERSION, VOCABULARY
from d22kit.state import describe
from d22kit.store import Store, scan_files
from d22kit.times import instant, iso

__all__ = [
    "LAST_AUDIT",
    "StoreStatus",
    "VacuumReport",
    "changes",
    "quarantine",
    "set_apart",
    "status",
    "vacuum",
    "versions",
]

LAST_AUDIT = "last-audit.json"
"""Beside the table: when the whole store was last compared with the service."""

_VERSIONS = pl.Schema(
    {
        "version": pl.Int64(),
        "committed_at": pl.Datetime("ms", "UTC"),
        "act": pl.String(),
        **dict.fromkeys(
            ("fetched", "new", "updated", "unchanged", "outdated", "removed", "quarantined"), pl.Int64()
        ),
        "watermark": pl.Datetime("us", "UTC"),
    }
)


@dataclass(frozen=True, repr=False)
class StoreStatus(Facts):
    """How a store stands.

    Parameters
    ----------
    data, owner
        Where it lies, and the service root and lender it belongs to.
    version
        Its newest version.
    rows, bytes, files
        Rows, bytes on disk and data files of that version.
    watermark
        Up to here (UTC, `updated_at`) it is complete; None before the first sync is done.
    unfinished
        Windows that an interrupted sync left; the next one goes on with them.
    quarantined
        Rows set apart because they could not be stored, and were not since.
    audited, audited_equal
        When all of it was last compared with the service (UTC, the service's clock), and whether both were equal
        afterwards; None where it never was.
    """

    data: str
    owner: str
    version: int
    rows: int
    bytes: int
    files: int
    watermark: datetime | None
    unfinished: int
    quarantined: int
    audited: datetime | None = None
    audited_equal: bool | None = None

    title = "Store"

    def facts(self) -> Iterator[tuple[str, str]]:
        """Give the status line by line."""
        yield "store", self.data
        yield "service", self.owner
        yield "version", str(self.version)
        yield "rows", number(self.rows)
        yield "on disk", f"{size(self.bytes)} in {number(self.files)} file{'s' * (self.files != 1)}"
        yield "complete up to", iso(self.watermark) if self.watermark else "not yet complete"
        yield "quarantined", number(self.quarantined)
        yield "last audit", self.last_audit(iso(self.audited) if self.audited else "")

    def last_audit(self, when: str) -> str:
        """Say what the last audit of the whole store found, with its time as the reader writes it."""
        if self.audited is None:
            return "never"
        return f"{when}, {'equal to the service' if self.audited_equal else 'not equal to the service'}"

    def advice(self) -> Iterator[str]:
        """Say what to look at, if anything."""
        if self.audited_equal is False:
            yield "The last audit found a difference: run 'd22kit audit --repair missing'."
        if self.unfinished:
            yield "A sync was interrupted; run 'd22kit sync' to go on."
        if self.quarantined:
            yield "Some rows could not be stored: see 'd22kit quarantine'."


@dataclass(frozen=True, repr=False)
class VacuumReport(Facts):
    """Which files a vacuum deleted: `files` of them, `bytes` in all; versions older than `keep` are gone."""

    data: str
    keep: timedelta
    files: int
    bytes: int

    title = "Vacuum"

    def facts(self) -> Iterator[tuple[str, str]]:
        """Give the report line by line."""
        yield "store", self.data
        yield "versions kept", f"those of the last {self.keep / timedelta(days=1):g} days"
        yield "files deleted", number(self.files)
        yield "bytes deleted", size(self.bytes)


def status(data: str | os.PathLike[str] | None = None) -> StoreStatus:
    """Return how a store stands: its rows, how far it is complete, what is unfinished or set apart.

    Parameters
    ----------
    data
        The store's directory or URL; None is `$D22KIT_DATA`, else `data` in the working directory.

    Raises
    ------
    StoreNotFoundError, StoreFormatError
        Where there is no store of d22kit's.
    """
    store = Store.open(data)
    files, state, audit = store.files(), store.state(), store.noted(LAST_AUDIT)
    return StoreStatus(
        data=store.root,
        owner=store.owner,
        version=store.table.version(),
        rows=int(files["rows"].sum()),
        bytes=int(files["bytes"].sum()),
        files=files.height,
        watermark=state.watermark,
        unfinished=len(state.windows),
        quarantined=quarantine(data).height,
        audited=instant(audit.get("at")),
        audited_equal=audit.get("equal"),
    )


def versions(data: str | os.PathLike[str] | None = None) -> pl.DataFrame:
    """Return every version of a store, the newest first.

    Returns
    -------
    pl.DataFrame
        `version`, `committed_at` (UTC), `act`, then rows `fetched`, `new`, `updated`, `unchanged`, `outdated`,
        `removed` and `quarantined` by that commit, and the `watermark` (UTC) it reached. Commits by other
        writers have only a version and a time.
    """
    rows = []
    for commit in Store.open(data).history():
        act, counts, state = describe(commit)
        moment = datetime.fromtimestamp(commit["timestamp"] / 1000, UTC)
        row = {"version": commit["version"], "committed_at": moment, "act": act}
        rows.append({**row, **counts, "watermark": state and state.watermark})
    return pl.DataFrame(rows, schema=_VERSIONS)


def quarantine(data: str | os.PathLike[str] | None = None) -> pl.DataFrame:
    """Return the rows that could not be stored, each once, without those that were stored since.

    Returns
    -------
    pl.DataFrame
        `reason`, `request_id` (what the service called the answer that brought the row) and `raw` (its JSON as
        it came; it may hold personal data).

    Raises
    ------
    StoreError
        Where a file of the quarantine is damaged or cannot be read.
    """
    return set_apart(Store.open(data)).select("reason", "request_id", "raw")


def set_apart(store: Store) -> pl.DataFrame:
    """Return the rows of `quarantine`, and key and time (`apart`) of each as far as its JSON has them."""
    place = store.place("quarantine")
    rows = pl.DataFrame(schema={"reason": pl.String, "request_id": pl.String, "raw": pl.String})
    try:
        if not store.local or Path(place).is_dir():
            files = pl.scan_parquet(f"{place}/*.parquet", missing_columns="insert", schema=rows.schema)
            rows = files.collect().unique("raw", keep="last", maintain_order=True)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise StoreError(
            f"A file in {place} cannot be read: {plain(error)}. Take it away, and audit(repair='missing') fetches "
            "what it held and sets it apart anew."
        ) from error
    told = [_identity(raw) for raw in rows["raw"]]
    known = rows.with_columns(
        pl.DataFrame(told, schema={KEY: pl.String, "apart": STORED[VERSION]}, orient="row")
    )
    keys = known.drop_nulls([KEY, "apart"]).group_by(KEY).agg(pl.col("apart").max())
    if keys.is_empty():
        return known
    stored = scan_files(store.files()["path"].to_list()).select(KEY, VERSION).join(keys.lazy(), on=KEY)
    since = stored.filter(pl.col(VERSION) >= pl.col("apart")).collect(engine="streaming")
    return known.join(since, on=KEY, how="anti", maintain_order="left")


def _identity(raw: str) -> tuple[str | None, datetime | None]:
    try:
        row = json.loads(raw)
        key = row.get(KEY) if isinstance(row, dict) else None
        return str(key) if key else None, newest(f"[{raw}]".encode())
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return None, None


def changes(
    data: str | os.PathLike[str] | None = None, *, since_version: int, until_version: int | None = None
) -> pl.DataFrame:
    """Return what became of the rows between two versions: what a sync, or a week of syncs, changed.

    Parameters
    ----------
    data
        The store.
    since_version, until_version
        The version before, and the one after; None is the newest.

    Returns
    -------
    pl.DataFrame
        `public_id`, `change` (`"inserted"`, `"updated"` or `"removed"`), the row's columns as the later version
        has them (as the earlier one had them where removed), and `old_status`, `old_delivery_status` and
        `old_updated_at` beside them (null where inserted).

    Raises
    ------
    VersionNotFoundError
        Where a version is not in the store, or its files were vacuumed away.
    InputError
        Where the versions are not in order.
    """
    store = Store.open(data)
    last = store.table.version() if until_version is None else until_version
    first = store.at(since_version)
    if since_version > last:
        raise InputError(f"since_version={since_version} comes after until_version={last}; swap the two.")
    before, after = first.files(), store.at(last).files()
    # A file in both versions holds the same rows, so only the exchanged ones are read.
    left, came = before.join(after, on="path", how="anti"), after.join(before, on="path", how="anti")
    first.check_kept(left)
    store.at(last).check_kept(came)
    return _differences(_rows(left), _rows(came)).collect(engine="streaming")


def vacuum(
    data: str | os.PathLike[str] | None = None, *, keep: timedelta = timedelta(days=30)
) -> VacuumReport:
    """Delete files that no version of the last `keep` needs, and those a killed sync left.

    Parameters
    ----------
    data
        The store.
    keep
        How long versions stay readable.

    Raises
    ------
    StoreLockedError
        Where a sync is running.
    InputError
        Where `keep` is negative.
    """
    if keep < timedelta(0):
        raise InputError(f"keep={keep} is negative; give a timedelta of 0 or more.")
    store = Store.open(data)
    with store.writing():
        sizes = _sizes(store)
        try:
            # Only a full vacuum also lists files that no commit ever named.
            gone = store.table.vacuum(
                retention_hours=ceil(keep / timedelta(hours=1)),
                dry_run=False,
                enforce_retention_duration=False,
                full=True,
            )
        except (DeltaError, OSError) as error:
            raise StoreError(f"The store at {store.root} could not be vacuumed: {plain(error)}.") from error
    return VacuumReport(store.root, keep, len(gone), sum(sizes.get(name, 0) for name in gone))


def _rows(files: pl.DataFrame) -> pl.LazyFrame:
    return scan_files(files["path"].to_list()).with_columns(pl.col(VOCABULARY).cast(pl.String))


def _differences(old: pl.LazyFrame, new: pl.LazyFrame) -> pl.LazyFrame:
    was = old.select(pl.all().name.prefix("old_")).with_columns(pl.col(f"old_{KEY}").alias(KEY))
    both = new.with_columns(pl.lit(True).alias("now")).join(was, on=KEY, how="full", coalesce=True)
    same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(f"old_{name}")) for name in NAMES if name != KEY)
    change = (
        pl.when(pl.col("now").is_null())
        .then(pl.lit("removed"))
        .when(pl.col(f"old_{KEY}").is_null())
        .then(pl.lit("inserted"))
        .otherwise(pl.lit("updated"))
    )
    # A removed row shows what it was; any other shows what it is, nulls included.
    gone = pl.col("now").is_null()
    shown = [pl.when(gone).then(f"old_{name}").otherwise(name).alias(name) for name in NAMES if name != KEY]
    beside = [f"old_{name}" for name in ("status", "delivery_status", VERSION)]
    changed = both.with_columns(change.alias("change")).filter((pl.col("change") != "updated") | ~same)
    return changed.select(KEY, "change", *shown, *beside).sort(VERSION, KEY)


def _sizes(store: Store) -> dict[str, int]:
    if not store.local:
        return {}
    base = Path(store.place("conversations"))
    return {path.relative_to(base).as_posix(): path.stat().st_size for path in base.rglob("*.parquet")}
