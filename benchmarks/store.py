"""What an increment and a load cost, on a small and a large store, side by side in one run.

    python benchmarks/store.py --rows 1_000_000 10_000_000

A large store has as many days as a small one and more rows in each (`denser`), or as many rows a day and more days
(`longer`). The increment changes 10,000 rows of the last 20 days, so it touches as many partitions in each; the load
is compared with `polars.read_parquet` of one clean file of the same rows. Each measurement runs in a process of its own
and is the best of some; peak memory counts the imports.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import polars as pl

import d22kit
from d22kit.commits import commit_rows
from d22kit.schema import CREATED, KEY, STORED, VERSION
from d22kit.simulator import generate
from d22kit.state import State
from d22kit.store import Store

CHANGED, DAYS, COPY = 10_000, 20, 1_000_000

FRAME = """
import json, sys, time
import polars as pl, d22kit
from d22kit import loading, commits
from d22kit.state import State
from d22kit.store import Store
root, clean, changed = sys.argv[1:]
rows = {prepare}
begun = time.perf_counter()
{act}
peak = int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) / 1024
print(json.dumps([time.perf_counter() - begun, peak]))
"""

ACTS = {
    "increment": ("pl.read_parquet(changed)", "commits.commit_rows(Store.open(root), rows, [], State())"),
    "load": ("None", "frame = d22kit.load(root)"),
    "read_parquet": ("None", "frame = pl.read_parquet(clean)"),
}


def copies(rows: int, kind: str) -> Iterator[pl.DataFrame]:
    """Give as many rows, in copies of one lender that differ in their keys, and in a longer store in their years."""
    lender = generate(min(rows, COPY), seed=7).cast(dict(STORED)).sort(VERSION)  # type: ignore[arg-type]
    days = lender.select((pl.col(VERSION).max() - pl.col(VERSION).min()).dt.total_days()).item() + 1
    for n in range(max(1, rows // COPY)):
        back = timedelta(days=n * days if kind == "longer" else 0)
        second = pl.col(KEY).str.slice(0, 8).str.to_integer(base=16) - int(back.total_seconds())
        key = pl.format(
            "{}{}{}",
            second.map_elements("{:08x}".format, pl.String),
            pl.col(KEY).str.slice(8, 13),
            pl.lit(f"{n:03x}"),
        )
        yield lender.with_columns(key.alias(KEY), pl.col(CREATED, VERSION) - back)


def build(folder: Path, rows: int, kind: str) -> None:
    """Make a store, the same rows as one clean file, and the changed rows of one increment."""
    store = Store.create(folder / "store", "benchmark")
    for frame in copies(rows, kind):
        commit_rows(store, frame, [], State())
    everything = d22kit.scan(folder / "store").with_columns(pl.col(pl.Categorical).cast(pl.String))
    everything.sort(VERSION).sink_parquet(folder / "clean.parquet", compression="zstd")
    last = everything.select(pl.col(VERSION).max()).collect().item()
    recent = everything.filter(pl.col(VERSION) >= last - timedelta(days=DAYS)).collect()
    changed = recent.sample(CHANGED, seed=1).with_columns(pl.lit(last + timedelta(seconds=1)).alias(VERSION))
    changed.write_parquet(folder / "changed.parquet")


def measure(folder: Path, act: str) -> tuple[float, float]:
    """Return seconds and peak MB of one act, in a process of its own."""
    prepare, code = ACTS[act]
    script = FRAME.format(prepare=prepare, act=code)
    paths = [str(folder / name) for name in ("store", "clean.parquet", "changed.parquet")]
    done = subprocess.run(
        [sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True, env=os.environ
    )
    seconds, peak = json.loads(done.stdout)
    return seconds, peak


def best(folder: Path, act: str, times: int) -> tuple[float, float]:
    """Return the least seconds and peak of some runs; an increment is taken back after each."""
    found = []
    for _ in range(times):
        before = Store.open(folder / "store").table.version()
        found.append(measure(folder, act))
        if act == "increment":
            Store.open(folder / "store").table.restore(before)
    return min(seconds for seconds, _ in found), min(peak for _, peak in found)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000, 10_000_000])
    parser.add_argument("--best-of", type=int, default=3)
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}\n")
    print(f"{'rows':>12} {'store':<8} {'act':<14} {'seconds':>8} {'peak MB':>8}")
    for rows in given.rows:
        for kind in ("denser", "longer") if rows > COPY else ("",):
            with tempfile.TemporaryDirectory() as folder:
                build(Path(folder), rows, kind)
                for act in ACTS:
                    seconds, peak = best(Path(folder), act, given.best_of)
                    print(f"{rows:>12,} {kind:<8} {act:<14} {seconds:>8.2f} {peak:>8.0f}", flush=True)


if __name__ == "__main__":
    main()
