"""How fast, how dear and how right a backfill is, side by side in one run against the simulator.

    python benchmarks/ingest.py --rows 300_000 --latency 0 20 50 100

Each contestant runs in a process of its own, and so does the service. `bare` only walks the pages and throws them
away; `pandas` is the script one would write first; `dlt` is its REST source tuned for this job (Parquet loader,
filesystem destination, `dedup_sort`), and is skipped where dlt is not installed (`--dlt-python` names another Python
that has it). CPU is of the whole process without its imports; "right" compares every key and `updated_at` with a walk
of the service.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

import d22kit

WALK = """
import httpx, msgspec, os
env = os.environ
class Pagination(msgspec.Struct): nextCursor: str | None
class Body(msgspec.Struct): rows: msgspec.Raw; pagination: Pagination
class Page(msgspec.Struct): body: Body
decode = msgspec.json.Decoder(Page).decode
def walk():
    with httpx.Client() as client:
        who = {"email": env["D22KIT_EMAIL"], "password": env["D22KIT_PASSWORD"]}
        login = client.post(f"{env['D22KIT_ROOT']}/admin/auth/{env['D22KIT_LENDER']}/login", json=who).json()
        url = f"{env['D22KIT_ROOT']}/admin/v3/lenders/{login['lenderPublicId']}/exports/S4/D22"
        headers, asked = {"Authorization": "Bearer " + login["token"]}, {"limit": "1000"}
        while True:
            body = decode(client.get(url, params=asked, headers=headers).content).body
            yield body.rows
            if body.pagination.nextCursor is None:
                return
            asked["cursor"] = body.pagination.nextCursor
"""

CONTESTANTS = {
    "bare": (
        WALK,
        "for rows in walk(): pass",
    ),
    "d22kit": (
        "import os\nos.environ['_RJEM_MALLOC_CONF'] = 'narenas:1'  # as `d22kit sync` has it\n"
        "import d22kit, polars, deltalake, httpx\nfrom d22kit import syncing, loading",
        "d22kit.sync(data=out, workers=int(option), progress=False)",
    ),
    "pandas": (
        WALK + "import pandas as pd",
        """
rows = [row for page in walk() for row in json.loads(bytes(page))]
frame = pd.json_normalize(rows)
for name in ("created_at", "updated_at"):
    frame[name] = pd.to_datetime(frame[name])
frame = frame.sort_values("updated_at", kind="stable").drop_duplicates("public_id", keep="last")
frame.to_parquet(out + "/rows.parquet")
""",
    ),
    "dlt": (
        """
import os
os.environ.update({"RUNTIME__DLTHUB_TELEMETRY": "false", "DATA_WRITER__BUFFER_MAX_ITEMS": "100000",
                   "NORMALIZE__WORKERS": "1", "RUNTIME__LOG_LEVEL": "ERROR"})
import dlt, httpx
from dlt.sources.rest_api import rest_api_resources
""",
        """
env = os.environ
who = {"email": env["D22KIT_EMAIL"], "password": env["D22KIT_PASSWORD"]}
login = httpx.post(f"{env['D22KIT_ROOT']}/admin/auth/{env['D22KIT_LENDER']}/login", json=who).json()
rows, = rest_api_resources({
    "client": {"base_url": f"{env['D22KIT_ROOT']}/admin/v3/lenders/{login['lenderPublicId']}/exports/S4/",
               "auth": {"type": "bearer", "token": login["token"]}},
    "resources": [{
        "name": "d22", "primary_key": "public_id",
        "write_disposition": {"disposition": "merge", "strategy": "delete-insert"},
        "columns": {"updated_at": {"dedup_sort": "desc"}}, "max_table_nesting": 0,
        "endpoint": {"path": "D22", "params": {"limit": 1000}, "data_selector": "body.rows",
                     "paginator": {"type": "cursor", "cursor_path": "body.pagination.nextCursor",
                                   "cursor_param": "cursor"}}}]})
pipeline = dlt.pipeline("d22", destination=dlt.destinations.filesystem("file://" + out), dataset_name="d22",
                        pipelines_dir=out + "/dlt")
pipeline.run(rows, loader_file_format="parquet")
""",
    ),
}

FRAME = """
import json, os, resource, sys, time
out, option = sys.argv[1:]
{prepare}
cpu, wall = time.process_time(), time.perf_counter()
{act}
try:
    peak = int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) / 1024
except OSError:  # elsewhere than on Linux, where rusage would also count the process it was forked from
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
print("RESULT", json.dumps([time.process_time() - cpu, time.perf_counter() - wall, peak]))
"""


def start(rows: int, latency: float) -> tuple[subprocess.Popen[str], dict[str, str]]:
    """Start the service in a process of its own; return it and the environment that points at it."""
    command = [sys.executable, "-m", "d22kit.cli", "simulate", f"--rows={rows}", f"--latency={latency}"]
    service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None
    lines = [service.stdout.readline() for _ in range(4)]
    return service, dict(re.findall(r"(D22KIT_\w+)='?([^'\s]+)'?", "".join(lines)))


def run(python: str, name: str, option: str, env: dict[str, str]) -> dict[str, Any]:
    """Run one contestant; return what it cost, and the keys and versions it kept."""
    prepare, act = CONTESTANTS[name]
    with tempfile.TemporaryDirectory() as out:
        script = FRAME.format(prepare=prepare, act=act)
        done = subprocess.run(
            [python, "-c", script, out, option],
            env=os.environ | env,
            capture_output=True,
            text=True,
            check=False,
        )
        result = re.search(r"RESULT (.*)", done.stdout)
        if result is None:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            return {"failed": "not installed" if "ModuleNotFoundError" in last else last[:60]}
        cpu, wall, peak = json.loads(result[1])
        return {"cpu": cpu, "wall": wall, "peak": peak, "kept": kept(name, Path(out))}


def kept(name: str, out: Path) -> pl.DataFrame | None:
    """Return key and `updated_at` of the rows a contestant kept, sorted."""
    if name == "bare":
        return None
    if name == "d22kit":
        rows = d22kit.load(out, columns=["public_id", "updated_at"])
    else:
        files = sorted(out.glob("d22/d22/*.parquet") if name == "dlt" else out.glob("*.parquet"))
        rows = pl.concat([pl.read_parquet(file, columns=["public_id", "updated_at"]) for file in files])
    return rows.cast({"updated_at": pl.Datetime("us", "UTC")}).sort("public_id", "updated_at")


def truth(env: dict[str, str]) -> pl.DataFrame:
    """Return key and `updated_at` of every row of the service, by a plain walk."""
    script = WALK + "import sys\nfor rows in walk(): sys.stdout.buffer.write(bytes(rows)[1:-1] + b',')"
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | env, capture_output=True, check=True
    )
    rows = pl.read_json(
        b"[" + done.stdout.strip(b",") + b"]", schema={"public_id": pl.String, "updated_at": pl.String}
    )
    return rows.with_columns(pl.col("updated_at").str.to_datetime(time_unit="us", time_zone="UTC")).sort(
        "public_id"
    )


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument(
        "--latency", type=float, nargs="*", default=[0, 20, 50, 100], help="milliseconds a page"
    )
    parser.add_argument("--only", nargs="*", default=list(CONTESTANTS), choices=list(CONTESTANTS))
    parser.add_argument("--workers", nargs="*", default=["1", "4", "8"])
    parser.add_argument("--best-of", type=int, default=1)
    parser.add_argument("--dlt-python", default=sys.executable)
    given = parser.parse_args()
    print(f"{given.rows:,} rows in pages of 1,000; {os.cpu_count()} cores, Python {sys.version.split()[0]}\n")
    print(
        f"{'latency':>8} {'who':<18} {'rows/s':>9} {'wall s':>7} {'CPU s/million':>14} {'peak MB':>8}  right"
    )
    for latency in given.latency:
        service, env = start(given.rows, latency / 1000)
        try:
            want = truth(env)
            for name in given.only:
                for option in given.workers if name == "d22kit" else [""]:
                    label = f"d22kit, {option} worker{'s' * (option != '1')}" if option else name
                    python = given.dlt_python if name == "dlt" else sys.executable
                    runs = [run(python, name, option, env) for _ in range(given.best_of)]
                    print(f"{latency:>5g} ms {label:<18} {line(runs, want)}", flush=True)
        finally:
            service.terminate()
            service.wait()


def line(runs: list[dict[str, Any]], want: pl.DataFrame) -> str:
    """Return the best of some runs as a line of the table."""
    if failed := [r["failed"] for r in runs if "failed" in r]:
        return failed[0]
    cpu, wall, peak = (min(r[name] for r in runs) for name in ("cpu", "wall", "peak"))
    kept = [r["kept"] for r in runs]
    right = "" if kept[0] is None else "yes" if all(rows.equals(want) for rows in kept) else "NO"
    rows = want.height
    return f"{rows / wall:>9,.0f} {wall:>7.2f} {cpu / rows * 1e6:>14.2f} {peak:>8.0f}  {right}"


if __name__ == "__main__":
    main()
