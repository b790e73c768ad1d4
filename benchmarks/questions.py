"""How long each question takes, beside what one would write by hand.

    python benchmarks/questions.py --rows 10_000_000

Side by side in one run, in turns, the median of some rounds: d22kit on Polars, hand-written Polars (lazy, so that it
reads only what it needs), DuckDB SQL and pandas groupby, and d22kit on a DuckDB relation. The hand-written ones count
the same, but have no gaps filled, no intervals, no role map and no bounce causes; of `compare` they have the
difference alone, of `anomalies` the median of the same weekdays before. Last, the memory of each question on
`d22kit.scan` of a store of the same rows.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import polars.selectors as cs

import d22kit
from d22kit.commits import commit_rows
from d22kit.schema import VERSION
from d22kit.simulator.lender import generate
from d22kit.state import State
from d22kit.store import Store

TZ = "Asia/Dubai"
RULE = d22kit.HoursRule.us_regulation_f(zone=TZ)
LOCAL = pl.col("created_at").dt.convert_time_zone(TZ)
STATE = pl.col("delivery_status").str.to_uppercase()
WORDS = ("DELIVERED", "READ", "OPENED", "SENT", "BOUNCED", "UNDELIVERED", "FAILED", "DEFERRED")
FAILED = ("BOUNCED", "UNDELIVERED", "FAILED")
SQL_WORDS = ", ".join(f"count(*) filter (s = '{word}')" for word in WORDS)
SENDS = "type = 'OUTBOUND' and operation = 'SEND'"

VOCABULARY = ("platform", "purpose", "type", "by", "operation", "status", "visibility", "delivery_status")
TEXTS = ("public_id", "delivery_code", "delivery_error_detail")
TIMES = ("created_at", "updated_at")
BLANKS = ("", "NONE")
ONLY_PROFILED = ("public_id", "purpose", "status", "visibility")
SQL_VALUES = " union all ".join(
    f"select '{name}', \"{name}\", count(*) from rows group by all" for name in VOCABULARY
)
SQL_BLANKS = " + ".join(
    f"count(*) filter ({name} is null) + count(*) filter (upper(trim({name})) = '') "
    f"+ count(*) filter (upper(trim({name})) = 'NONE')"
    for name in TEXTS
)

ASK: dict[str, Callable[[Any], Any]] = {
    "volume": lambda rows: d22kit.volume(rows, by="platform", tz=TZ),
    "heatmap": lambda rows: d22kit.heatmap(rows, tz=TZ),
    "share": lambda rows: d22kit.share(rows, by="platform", tz=TZ),
    "delivery": lambda rows: d22kit.delivery(rows, by="platform", tz=TZ),
    "time_to_last_update": lambda rows: d22kit.time_to_last_update(rows, by="platform"),
    "engagement": lambda rows: d22kit.engagement(rows, tz=TZ),
    "contact_hours": lambda rows: d22kit.contact_hours(rows, RULE, by="platform"),
    "backlog": lambda rows: d22kit.backlog(rows, by="platform"),
    "bounces": lambda rows: d22kit.bounces(rows, by="platform"),
    "compare": lambda rows: d22kit.compare(rows, metric="delivery_rate", by="platform", tz=TZ),
    "anomalies": lambda rows: d22kit.anomalies(rows, metric="bounce_rate", by="platform", tz=TZ),
    "profile": d22kit.profile,
}

POLARS: dict[str, Callable[[pl.LazyFrame], Any]] = {
    "volume": lambda rows: rows.group_by(LOCAL.dt.truncate("1d"), "platform").agg(
        pl.len(),
        (pl.col("type") == "OUTBOUND").sum().alias("out"),
        (pl.col("type") == "INBOUND").sum().alias("in"),
    ),
    "heatmap": lambda rows: rows.group_by(LOCAL.dt.weekday().alias("d"), LOCAL.dt.hour().alias("h")).len(),
    "share": lambda rows: (
        rows.group_by(LOCAL.dt.truncate("1mo"), "platform")
        .len()
        .with_columns(share=pl.col("len") / pl.col("len").sum().over("created_at"))
    ),
    "delivery": lambda rows: (
        rows.filter(pl.col("type") == "OUTBOUND", pl.col("operation") == "SEND")
        .with_columns(s=STATE)
        .group_by(LOCAL.dt.truncate("1d"), "platform")
        .agg(pl.len(), *((pl.col("s") == word).sum().alias(word) for word in WORDS))
    ),
    "time_to_last_update": lambda rows: (
        rows.with_columns(
            s=STATE, t=(pl.col("updated_at") - pl.col("created_at")).dt.total_microseconds() / 1e6
        )
        .group_by("platform", "s")
        .agg(pl.len(), *(pl.col("t").quantile(q, "linear").alias(f"p{q}") for q in (0.5, 0.9, 0.99)))
    ),
    "engagement": lambda rows: (
        rows.with_columns(s=STATE)
        .group_by(LOCAL.dt.truncate("1mo"), "platform")
        .agg(
            (pl.col("type") == "INBOUND").sum().alias("in"),
            ((pl.col("type") == "OUTBOUND") & pl.col("s").is_in(WORDS[:3])).sum().alias("delivered"),
            ((pl.col("type") == "OUTBOUND") & (pl.col("by") == "SYSTEM")).sum().alias("automated"),
        )
    ),
    "contact_hours": lambda rows: (
        rows.filter(pl.col("type") == "OUTBOUND")
        .group_by(LOCAL.dt.truncate("1mo").alias("month"), "platform")
        .agg(
            pl.len(),
            ((LOCAL.dt.hour() < 8) | (LOCAL.dt.hour() >= 21)).sum().alias("outside"),
            LOCAL.dt.time().min().alias("first"),
            LOCAL.dt.time().max().alias("last"),
        )
    ),
    "backlog": lambda rows: (
        rows.with_columns(age=(pl.col("updated_at").max() - pl.col("created_at")).dt.total_days())
        .filter(
            pl.col("type") == "OUTBOUND", pl.col("operation") == "SEND", STATE.is_in(["SENT", "DEFERRED"])
        )
        .group_by("platform", STATE, "age")
        .agg(pl.len(), pl.col("created_at").min().alias("oldest"))
    ),
    "bounces": lambda rows: (
        rows.filter(pl.col("type") == "OUTBOUND", pl.col("operation") == "SEND", STATE.is_in(FAILED))
        .group_by("platform", STATE, "delivery_code", "delivery_error_detail")
        .agg(pl.len(), pl.col("updated_at").min().alias("first"), pl.col("updated_at").max().alias("last"))
        .join(
            rows.filter(pl.col("type") == "OUTBOUND", pl.col("operation") == "SEND")
            .group_by("platform")
            .agg(attempts=pl.len()),
            on="platform",
        )
    ),
    "compare": lambda rows: (
        _daily(rows, "1w", WORDS[:3])
        .sort("period")
        .with_columns(difference=pl.col("value") - pl.col("value").shift().over("platform"))
    ),
    "anomalies": lambda rows: (
        _daily(rows, "1d", ["BOUNCED"])
        .sort("period")
        .with_columns(
            usual=pl.col("value").shift().rolling_median(8).over("platform", pl.col("period").dt.weekday())
        )
    ),
    "profile": lambda rows: pl.concat(
        [
            *(rows.group_by(value=pl.col(name).cast(pl.String)).len() for name in VOCABULARY),
            rows.select(
                *(pl.col(name).is_null().sum().alias(f"{name}_null") for name in (*TEXTS, *TIMES)),
                *((_plain(name) == blank).sum().alias(name + blank) for name in TEXTS for blank in BLANKS),
                *(pl.col(name).min().alias(f"{name}_first") for name in TIMES),
                *(pl.col(name).max().alias(f"{name}_last") for name in TIMES),
                reversed=(pl.col("updated_at") < pl.col("created_at")).sum(),
            ),
        ],
        how="diagonal",
    ),
}


def _plain(name: str) -> pl.Expr:
    return pl.col(name).str.strip_chars().str.to_uppercase()


def _daily(rows: pl.LazyFrame, every: str, words: Sequence[str]) -> pl.LazyFrame:
    """A rate per period and channel: attempts that ended in one of the words."""
    sent = rows.filter(pl.col("type") == "OUTBOUND", pl.col("operation") == "SEND")
    return sent.group_by(LOCAL.dt.truncate(every).alias("period"), "platform").agg(
        n=pl.len(), value=STATE.is_in(words).mean()
    )


SQL = {
    "volume": f"""select date_trunc('day', created_at at time zone '{TZ}') d, platform, count(*),
        count(*) filter (type = 'OUTBOUND'), count(*) filter (type = 'INBOUND') from rows group by all""",
    "heatmap": f"""select isodow(created_at at time zone '{TZ}'), hour(created_at at time zone '{TZ}'), count(*)
        from rows group by all""",
    "share": f"""select *, n / sum(n) over (partition by d) from (select date_trunc('month', created_at at time zone
        '{TZ}') d, platform, count(*) n from rows group by all)""",
    "delivery": f"""select date_trunc('day', created_at at time zone '{TZ}') d, platform, count(*), {SQL_WORDS}
        from (select *, upper(delivery_status) s from rows where {SENDS}) group by all""",
    "time_to_last_update": """select platform, upper(delivery_status) s, count(*),
        quantile_cont((epoch_us(updated_at) - epoch_us(created_at)) / 1e6, [0.5, 0.9, 0.99]) from rows group by all""",
    "engagement": f"""select date_trunc('month', created_at at time zone '{TZ}') d, platform,
        count(*) filter (type = 'INBOUND'),
        count(*) filter (type = 'OUTBOUND' and upper(delivery_status) in ('DELIVERED', 'READ', 'OPENED')),
        count(*) filter (type = 'OUTBOUND' and "by" = 'SYSTEM') from rows group by all""",
    "contact_hours": f"""select date_trunc('month', t) d, platform, count(*),
        count(*) filter (hour(t) < 8 or hour(t) >= 21), min(t::time), max(t::time)
        from (select *, created_at at time zone '{TZ}' t from rows where type = 'OUTBOUND') group by all""",
    "backlog": f"""select platform, upper(delivery_status) s, count(*), min(created_at),
        datediff('day', created_at, (select max(updated_at) from rows)) a
        from rows where {SENDS} and s in ('SENT', 'DEFERRED') group by all""",
    "bounces": f"""with attempts as (select platform, count(*) attempts from rows where {SENDS} group by all)
        select * from (select platform, upper(delivery_status) s, delivery_code, delivery_error_detail, count(*) n,
        min(updated_at), max(updated_at) from rows where {SENDS} and s in {FAILED} group by all)
        join attempts using (platform)""",
    "compare": f"""select *, value - lag(value) over (partition by platform order by d) difference from (
        select date_trunc('week', created_at at time zone '{TZ}') d, platform, count(*) n,
        avg((upper(delivery_status) in {WORDS[:3]})::int) as value from rows where {SENDS} group by all)""",
    "anomalies": f"""select *, median(value) over (partition by platform, isodow(d) order by d
        rows between 8 preceding and 1 preceding) from (
        select date_trunc('day', created_at at time zone '{TZ}') d, platform, count(*) n,
        avg((upper(delivery_status) = 'BOUNCED')::int) as value from rows where {SENDS} group by all)""",
    "profile": f"""{SQL_VALUES}
        union all select 'blanks', null, {SQL_BLANKS} from rows
        union all select 'times', concat(min(created_at), max(created_at), min(updated_at), max(updated_at)),
        count(*) filter (updated_at < created_at) from rows""",
}


def _day(rows: pd.DataFrame) -> Any:
    return rows["created_at"].dt.tz_convert(TZ).dt.normalize()


def _month(rows: pd.DataFrame) -> Any:
    return rows["created_at"].dt.tz_convert(TZ).dt.tz_localize(None).dt.to_period("M")


def _sends(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[(rows["type"] == "OUTBOUND") & (rows["operation"] == "SEND")]


def _group(rows: pd.DataFrame, *keys: Any) -> Any:
    return rows.groupby(list(keys), observed=True, dropna=False)


def _hours(rows: pd.DataFrame) -> Any:
    out = rows[rows["type"] == "OUTBOUND"]
    local = out["created_at"].dt.tz_convert(TZ)
    outside = (local.dt.hour < 8) | (local.dt.hour >= 21)
    since = local - local.dt.normalize()
    parts = out.assign(outside=outside, since=since, month=_month(out))
    return parts.groupby(["month", "platform"], observed=True).agg(
        {"outside": ["size", "sum"], "since": ["min", "max"]}
    )


def _rate(rows: pd.DataFrame, every: str, words: Sequence[str]) -> Any:
    sent = _sends(rows)
    periods = sent["created_at"].dt.tz_convert(TZ).dt.tz_localize(None).dt.to_period(every)
    return _group(sent["delivery_status"].str.upper().isin(words), periods, sent["platform"]).mean()


PANDAS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "volume": lambda rows: _group(rows.assign(d=_day(rows)), "d", "platform", "type").size(),
    "heatmap": lambda rows: _group(
        rows,
        (local := rows["created_at"].dt.tz_convert(TZ)).dt.day_of_week.rename("d"),
        local.dt.hour.rename("h"),
    ).size(),
    "share": lambda rows: (
        _group(rows, _month(rows), "platform").size().groupby(level=0).transform(lambda n: n / n.sum())
    ),
    "delivery": lambda rows: _group(
        (sent := _sends(rows)).assign(d=_day(sent), s=sent["delivery_status"].str.upper()),
        "d",
        "platform",
        "s",
    ).size(),
    "time_to_last_update": lambda rows: _group(
        rows.assign(t=(rows["updated_at"] - rows["created_at"]).dt.total_seconds()),
        "platform",
        rows["delivery_status"].str.upper(),
    )["t"].quantile([0.5, 0.9, 0.99]),
    "engagement": lambda rows: _group(
        rows.assign(m=_month(rows), s=rows["delivery_status"].str.upper()), "m", "platform", "type", "by", "s"
    ).size(),
    "contact_hours": _hours,
    "backlog": lambda rows: _group(
        (sent := _sends(rows))[sent["delivery_status"].str.upper().isin(["SENT", "DEFERRED"])],
        "platform",
        "delivery_status",
    )["created_at"].agg(["size", "min"]),
    "bounces": lambda rows: (
        _group(
            (sent := _sends(rows))[sent["delivery_status"].str.upper().isin(FAILED)],
            "platform",
            "delivery_status",
            "delivery_code",
            "delivery_error_detail",
        )["updated_at"]
        .agg(["size", "min", "max"])
        .join(_group(sent, "platform").size().rename("attempts"))
    ),
    "compare": lambda rows: _rate(rows, "W-SUN", WORDS[:3]).groupby(level="platform", observed=True).diff(),
    "anomalies": lambda rows: (
        (rates := _rate(rows, "D", ["BOUNCED"]))
        .groupby(["platform", rates.index.get_level_values(0).day_of_week], observed=True)
        .transform(lambda rate: rate.shift().rolling(8).median())
    ),
    "profile": lambda rows: [
        *(rows[name].value_counts(dropna=False) for name in VOCABULARY),
        rows[[*TEXTS, *TIMES]].isna().sum(),
        *(rows[name].str.strip().str.upper().isin(BLANKS).sum() for name in TEXTS),
        rows[[*TIMES]].agg(["min", "max"]),
        (rows["updated_at"] < rows["created_at"]).sum(),
    ],
}


def seconds(tasks: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each task, in turns: whatever else the machine does meets all of them alike."""
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    for name, task in list(tasks.items()) * rounds:
        start = time.perf_counter()
        task()
        taken[name].append(time.perf_counter() - start)
    return {name: median(times) for name, times in taken.items()}


def build(folder: Path, rows: pl.DataFrame) -> None:
    """Make a store of rows."""
    store = Store.create(folder, "benchmark")
    for part in rows.sort(VERSION).iter_slices(1_000_000):
        commit_rows(store, part, [], State())


def peak(name: str, small: Path, large: Path) -> float:
    """Megabytes that a question takes on `scan` of a large store beyond what it takes on a small one (Linux)."""
    script = f"""if True:
        import d22kit
        from benchmarks.questions import ASK
        most = lambda: int(next(line for line in open("/proc/self/status") if "VmHWM" in line).split()[1]) / 1024
        ASK[{name!r}](d22kit.scan({str(small)!r}))
        before = most()
        ASK[{name!r}](d22kit.scan({str(large)!r}))
        print(most() - before)"""
    root = Path(__file__).parent.parent
    return float(
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, cwd=root).stdout
    )


def line(
    name: str, rounds: int, rows: pl.DataFrame, frame: pd.DataFrame | None, table: Any, stores: list[Path]
) -> list[str]:
    if name != "profile":  # what filters whole frames should copy no more than it needs
        rows, frame = (
            rows.drop(ONLY_PROFILED),
            None if frame is None else frame.drop(columns=[*ONLY_PROFILED]),
        )
    tasks = {
        "ours": lambda: ASK[name](rows),
        "polars": lambda: POLARS[name](rows.lazy()).collect(),
        "sql": lambda: table.query("rows", SQL[name]).pl(),
        "there": lambda: ASK[name](table),
    }
    if frame is not None:
        tasks["pandas"] = lambda: PANDAS[name](frame)
    took = seconds(tasks, rounds)
    beside = [
        f"{took[other]:.2f} ({took['ours'] / took[other]:.2f}×)" if other in took else "–"
        for other in ("polars", "sql", "pandas")
    ]
    there = f"{took['there']:.2f} ({took['there'] / took['sql']:.2f}× SQL)"
    return [name, f"{took['ours']:.2f}", *beside, there, f"{peak(name, *stores):.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument(
        "--no-pandas", action="store_true", help="leave pandas out: it wants 6 GB for 10 million rows"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=ASK, default=list(ASK), metavar="QUESTION")
    options = parser.parse_args()
    rows = generate(options.rows, seed=3)
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        stores = [Path(folder) / size for size in ("small", "large")]
        for store, held in zip(stores, (rows.head(1000), rows), strict=True):
            build(store, held)
        rows = rows.drop("extra")
        frame = None if options.no_pandas else rows.to_pandas()
        path = Path(folder) / "rows.parquet"
        rows.with_columns(cs.categorical().cast(pl.String)).write_parquet(path)
        connection.sql(f"create table rows as from read_parquet('{path}')")
        path.unlink()
        print(f"{options.rows:,} rows, median of {options.rounds}: seconds, and d22kit as a multiple of each")
        print(
            "| question | d22kit | Polars by hand | DuckDB SQL | pandas groupby | d22kit on DuckDB | scan, MB |"
        )
        print("|---|---|---|---|---|---|---|")
        table = connection.table("rows")
        for name in options.only:
            print(f"| {' | '.join(line(name, options.rounds, rows, frame, table, stores))} |", flush=True)


if __name__ == "__main__":
    main()
