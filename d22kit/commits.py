"""Rows into one new version of the table: the newest of each key stays, and only touched files are written anew."""

from __future__ import annotations

import io
import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import polars as pl
from deltalake.transaction import AddAction, RemoveAction

from d22kit.durable import sync_paths, write_whole
from d22kit.errors import StoreError
from d22kit.frames import Quarantined, emptied, latest_wins
from d22kit.schema import CREATED, DELIVERY, EXTRA, FRAME, KEY, NAMES, PARTITION, VERSION, VOCABULARY
from d22kit.state import Counts, State
from d22kit.store import OURS, Store, scan_files
from d22kit.times import iso

__all__ = ["commit_rows", "gathered", "remove_keys"]

T = TypeVar("T")

SMALL = 25_000
"""Rows under which a file is merged when its partition is written to; larger ones are left alone."""
AT_ONCE = 150_000
"""Stored rows read at once to be compared: they are in memory meanwhile."""
TOGETHER = 10_000
"""Rows of partitions written at once: they and their files are in memory meanwhile."""


class _Touched(NamedTuple):
    """A partition to write: its date, its incoming rows, and the files it replaces."""

    day: date
    incoming: pl.DataFrame
    replaced: list[dict[str, Any]]

    def rows(self) -> int:
        """Return how many rows it may have when it is written."""
        return self.incoming.height + sum(map(_rows, self.replaced))


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a commit has to do: rows to write, and keys to take out of the files that hold them."""

    incoming: pl.DataFrame
    superseded: pl.DataFrame
    counts: Counts


def commit_rows(
    store: Store, rows: pl.DataFrame, quarantined: list[Quarantined], state: State, *, act: str = "sync"
) -> Counts:
    """Make fetched rows and the state that speaks of them one new version; return what changed.

    Parameters
    ----------
    rows
        Rows as `frames.parse` gives them, in the order of their arrival.
    quarantined
        Rows that cannot be stored; they go beside the table before the commit.
    """
    live = store.files()
    # Pages that an older d22kit staged still hold words as texts.
    newest = latest_wins(rows).with_columns(pl.col(VOCABULARY).cast(pl.Categorical))
    plan = _compare(newest, live)
    counts = plan.counts + Counts(
        fetched=rows.height + len(quarantined),
        quarantined=len(quarantined),
        outdated=rows.height - newest.height,
    )
    if quarantined:
        _set_apart(store, quarantined)
    actions = _rewrite(store, plan, live)
    if actions or not state.same_as(store.state()):
        store.commit(actions, state, counts, act)
    return counts


def remove_keys(store: Store, keys: pl.Series, state: State) -> Counts:
    """Take rows out of the table in a version of their own; return how many there were."""
    live = store.files()
    doomed = _holding(keys, live)
    plan = _Plan(FRAME.to_frame(), doomed.select("path", KEY), Counts(removed=doomed.height))
    store.commit(_rewrite(store, plan, live), state, plan.counts, "remove")
    return plan.counts


def _compare(batch: pl.DataFrame, live: pl.DataFrame) -> _Plan:
    """Tell new rows from updates, from what is stored already and from what is older than the stored."""
    stored = _holding(batch[KEY], live)
    if stored.is_empty():
        return _Plan(batch, stored.select("path", KEY), Counts(new=batch.height))
    met = batch.select(KEY, VERSION).join(stored.rename({VERSION: "stored"}), on=KEY)
    same = met.filter(pl.col(VERSION) == pl.col("stored"))
    unchanged = _identical(batch.join(same, on=KEY, how="semi"), same["path"])
    older = met.filter(pl.col(VERSION) < pl.col("stored"))
    skip = pl.concat([unchanged, older[KEY]]).implode()
    kept = batch.filter(~pl.col(KEY).is_in(skip))
    superseded = met.filter(~pl.col(KEY).is_in(skip)).select("path", KEY)
    counts = Counts(
        new=kept.height - superseded.height,
        updated=superseded.height,
        unchanged=unchanged.len(),
        outdated=older.height,
    )
    return _Plan(kept, superseded, counts)


def _holding(keys: pl.Series, live: pl.DataFrame) -> pl.DataFrame:
    """Return key, version and file of the stored rows that have one of these keys."""
    # Files say their least and greatest key, and the first digits of a key are its second of creation.
    ordered = keys.sort()
    first = ordered.search_sorted(live["low"].fill_null(""), "left").alias("first")
    last = ordered.search_sorted(live["high"], "right").alias("last")
    anywhere = live["high"].is_null()
    near = live.with_columns(first, pl.when(anywhere).then(keys.len()).otherwise(last).alias("last"))
    found = [pl.DataFrame(schema={KEY: pl.String, VERSION: FRAME[VERSION], "path": pl.String})]
    neighbours = near.filter(pl.col("last") > pl.col("first")).sort("low").iter_rows(named=True)
    for files in gathered(neighbours, _rows, AT_ONCE):
        start, end = min(file["first"] for file in files), max(file["last"] for file in files)
        wanted = ordered.slice(start, end - start).to_frame(KEY).lazy()
        stored = scan_files([file["path"] for file in files], path="path").select(KEY, VERSION, "path")
        found.append(stored.join(wanted, on=KEY, how="semi").collect(engine="streaming"))
    return pl.concat(found)


def _identical(rows: pl.DataFrame, paths: pl.Series) -> pl.Series:
    """Return the keys of those rows that the table holds to the letter."""
    if rows.is_empty():
        return pl.Series(KEY, [], dtype=pl.String)
    stored = scan_files(paths.unique().to_list()).join(rows.lazy(), on=NAMES, how="semi", nulls_equal=True)
    return stored.select(KEY).collect(engine="streaming")[KEY]


def _rewrite(store: Store, plan: _Plan, live: pl.DataFrame) -> list[AddAction | RemoveAction]:
    """Write the touched partitions, a few at a time, and return the exchange of old files for new."""
    adds: list[AddAction] = []
    removes: list[RemoveAction] = []
    for some in gathered(_touched(plan, live), _Touched.rows, TOGETHER):
        parts = {day: _merged(plan, incoming, replaced) for day, incoming, replaced in some}
        adds += _write(store, {day: rows for day, rows in parts.items() if rows.height})
        removes += [_remove(file) for _, _, replaced in some for file in replaced]
    if store.local:
        sync_paths([Path(store.place("conversations", add.path)) for add in adds])
    return [*removes, *adds]


def gathered(items: Iterable[T], rows: Callable[[T], int], enough: int) -> Iterator[list[T]]:
    """Gather items until they have enough rows."""
    some: list[T] = []
    for item in items:
        some.append(item)
        if sum(map(rows, some)) >= enough:
            yield some
            some = []
    if some:
        yield some


def _merged(plan: _Plan, incoming: pl.DataFrame, replaced: list[dict[str, Any]]) -> pl.DataFrame:
    """Return the rows of a partition's new file: what comes in, and what stays of the files it replaces."""
    rows = incoming
    if replaced:
        stored = scan_files([file["path"] for file in replaced])
        kept = stored.join(plan.superseded.lazy(), on=KEY, how="anti", maintain_order="left")
        rows = pl.concat([kept.with_columns(emptied(pl.col(*DELIVERY, EXTRA))).collect(), incoming])
    return rows if rows[VERSION].is_sorted() else rows.sort(VERSION, KEY)


def _touched(plan: _Plan, live: pl.DataFrame) -> Iterator[_Touched]:
    """Give the partitions to write, in order."""
    # Pages are in order, so a partition's rows lie in few runs: slices of them, no copy.
    runs: dict[date, list[pl.DataFrame]] = {}
    start = 0
    for length, day in plan.incoming[VERSION].dt.date().rle().struct.unnest().iter_rows():
        runs.setdefault(day, []).append(plan.incoming.slice(start, length))
        start += length
    slices = {day: pl.concat(parts) for day, parts in runs.items()}
    holding = live.filter(pl.col("path").is_in(plan.superseded["path"].implode()))
    merged = live.filter(pl.col(PARTITION).is_in(list(slices)) & (pl.col("rows").fill_null(SMALL) < SMALL))
    files = pl.concat([holding, merged]).unique("path").partition_by(PARTITION, as_dict=True)
    replaced = {day: frame.to_dicts() for (day,), frame in files.items()}
    for day in sorted({*slices, *replaced}):
        yield _Touched(day, slices.get(day, plan.incoming.clear()), replaced.get(day, []))


def _write(store: Store, parts: dict[date, pl.DataFrame]) -> list[AddAction]:
    """Write one new file into each of these partitions."""
    adds = []
    for (day, rows), content in zip(parts.items(), _encoded(list(parts.values())), strict=True):
        name = f"{PARTITION}={day.isoformat()}/{OURS}{uuid.uuid4().hex}.parquet"
        size = _put(store, f"conversations/{name}", content)
        adds.append(AddAction(name, size, {PARTITION: day.isoformat()}, _now(), True, _statistics(rows)))
    return adds


def _encoded(frames: list[pl.DataFrame]) -> list[io.BytesIO]:
    # In one call: setting the engine going takes as long as writing a small file.
    contents = [io.BytesIO() for _ in frames]
    pl.collect_all(
        [
            frame.lazy().sink_parquet(content, compression="zstd", lazy=True)
            for frame, content in zip(frames, contents, strict=True)
        ],
        engine="streaming",
    )
    return contents


def _write_file(path: Path, content: memoryview) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _put(
    store: Store,
    name: str,
    content: io.BytesIO,
    write: Callable[[Path, memoryview], None] = _write_file,
) -> int:
    """Write a file under the store, and return its bytes; `sync_paths` puts it on the disk itself."""
    try:
        if store.local:
            write(Path(store.root, name), content.getbuffer())
        else:
            store.upload(name, content.getbuffer())
    except OSError as error:
        raise StoreError(
            f"A file could not be written under {store.root}: {error.strerror or error}. The store is as its "
            "last version left it; make room or mend the permission, and sync again."
        ) from error
    return content.getbuffer().nbytes


def _now() -> int:
    return time.time_ns() // 1_000_000


def _statistics(rows: pl.DataFrame) -> str:
    bounds = {
        "minValues": {KEY: rows[KEY].min(), **{c: _moment(rows[c].min()) for c in (CREATED, VERSION)}},
        "maxValues": {KEY: rows[KEY].max(), **{c: _moment(rows[c].max()) for c in (CREATED, VERSION)}},
    }
    known = {kind: {k: v for k, v in values.items() if v is not None} for kind, values in bounds.items()}
    nulls = {name: rows[name].null_count() for name in (KEY, CREATED, VERSION)}
    return json.dumps({"numRecords": rows.height, **known, "nullCount": nulls})


def _moment(value: object) -> str | None:
    return None if value is None else iso(value)  # type: ignore[arg-type]


def _rows(file: dict[str, Any]) -> int:
    return file["rows"] or SMALL  # another writer may not have counted them


def _remove(file: dict[str, Any]) -> RemoveAction:
    return RemoveAction(path=file["name"], deletion_timestamp=_now(), data_change=True)


def _set_apart(store: Store, quarantined: list[Quarantined]) -> None:
    frame = pl.DataFrame(quarantined, schema=["reason", "request_id", "raw"], orient="row")
    name = f"quarantine/{uuid.uuid4().hex}.parquet"
    # No commit names this file: whoever reads the folder may only ever see it whole.
    (content,) = _encoded([frame.cast(pl.String)])
    _put(store, name, content, write_whole)
