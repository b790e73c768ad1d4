"""How large an extract is, and how long it takes against a bare `sink_parquet`.

    python benchmarks/extracts.py --rows 1_000_000 --runs 5

The bare ones, with Polars' own defaults: `memory` writes the extract's finished frame (classified, masked, sorted) from
memory; `store` writes the store's rows as they are, `scan().sink_parquet()`; `by hand` makes the finished frame from
the store and writes it with `sink_parquet`. Against them stand `written`, the same finished frame from memory as an
extract writes it, with its checksum; and `extract`, which makes the frame from the store, writes, counts and sums up.
Each writes to a fresh place, and they take turns; compare the ratios, not the seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from operator import truediv
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl

import d22kit
from d22kit.commits import commit_rows
from d22kit.extracts.batch import Batch
from d22kit.extracts.conditions import DETAIL
from d22kit.extracts.formats import write_parquet
from d22kit.extracts.rows import BATCH, ahead
from d22kit.packages import checksum
from d22kit.schema import EXTRA, KEY, STORED, VERSION
from d22kit.simulator import generate
from d22kit.state import State
from d22kit.store import Store


def fill(place: Path, rows: int) -> None:
    """Keep a simulated lender's rows in a store."""
    frame = generate(rows).cast(dict(STORED)).sort(VERSION)
    commit_rows(Store.create(place, "https://api.example.test lender acme"), frame, [], State())


def by_hand(store: Path) -> pl.LazyFrame:
    """Return the rows of an extract as one would make them without it."""
    rows: pl.DataFrame = d22kit.classify(d22kit.load(store))
    hidden = rows.with_columns(d22kit.mask(pl.col(DETAIL)), pl.lit(None, pl.String).alias(EXTRA))
    return hidden.sort(VERSION, KEY).lazy()


def write(frame: pl.DataFrame, target: Path) -> None:
    """Write a frame as an extract writes it, and take its checksum."""
    write_parquet(target, ahead(Batch.of(rows) for rows in frame.iter_slices(BATCH)), "ms", lambda _: {})
    checksum(str(target))


def seconds(act: Callable[[], Any]) -> float:
    """Return how long an act takes."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def compare(place: Path, rows: int, runs: int) -> None:
    """Write all of them, turn by turn."""
    store, mine, bare = place / "store", place / "extract.parquet", place / "bare.parquet"
    fill(store, rows)
    made = d22kit.extract(mine, store)
    print(f"{made.rows:,} rows, {made.bytes / made.rows:.2f} bytes a row")
    frame = pl.read_parquet(mine)
    kept = frame.cast({pl.Datetime: pl.Datetime("us", "UTC")})  # as finely as a store keeps times
    acts: dict[str, Callable[[], Any]] = {
        "memory": lambda: frame.lazy().sink_parquet(bare),
        "store": lambda: d22kit.scan(store).sink_parquet(bare),
        "by hand": lambda: by_hand(store).sink_parquet(bare),
        "written": lambda: write(kept, mine),
        "extract": lambda: d22kit.extract(mine, store),
    }
    took: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(runs):
        for name, act in acts.items():
            for old in (mine, bare):
                old.unlink(missing_ok=True)
            took[name].append(seconds(act))
    middle = {name: median(times) for name, times in took.items()}
    for name, value in middle.items():
        written, whole = (median(map(truediv, took[act], took[name])) for act in ("written", "extract"))
        print(f"{name:<10} {value:7.2f} s   written {written:.2f}, extract {whole:.2f} times as long")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        compare(Path(place), asked.rows, asked.runs)


if __name__ == "__main__":
    main()
