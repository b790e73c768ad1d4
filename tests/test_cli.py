"""The command line: exit codes, one-paragraph errors, and JSON for machines."""

from __future__ import annotations

import inspect
import json
import logging
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import d22kit
from d22kit import progress
from d22kit.cli import main
from d22kit.commits import commit_rows
from d22kit.frames import Quarantined
from d22kit.schema import STORED
from d22kit.simulator import Simulation, simulate
from d22kit.store import State, Store


def run(*words: str) -> Result:
    result = CliRunner().invoke(main, list(words))
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Simulation:
    with simulate(1_000) as running:
        here = running.endpoint
        for name in ("root", "lender", "email", "password"):
            monkeypatch.setenv(f"D22KIT_{name.upper()}", str(getattr(here, name)))
        monkeypatch.setenv("D22KIT_DATA", str(tmp_path / "store"))
        yield running


def test_sync_status_and_quarantine(service: Simulation) -> None:
    assert "1,000" in run("sync", "--no-progress").output
    assert json.loads(run("status", "--json").output)["rows"] == 1_000
    assert run("quarantine").output == ""
    service.tick(inserts=3, late=0)
    assert json.loads(run("sync", "--json", "--no-progress").stdout)["new"] == 3
    assert "files deleted" in run("vacuum", "--keep", "0").output


def test_a_sync_without_a_terminal_says_how_far_it_is_and_only_on_stderr(
    service: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOG_SECONDS", -1)
    first = run("sync", "--json")
    assert json.loads(first.stdout)["new"] == 1_000
    assert "d22kit: sync: " in first.stderr
    assert "rows 1,000, " in first.stderr.splitlines()[-1]
    assert not logging.getLogger("d22kit").handlers
    monkeypatch.setattr(progress, "LOG_SECONDS", 30)
    assert run("sync", "--json").stderr == ""


def test_a_sync_is_told_to_use_one_heap_before_polars_is_loaded(tmp_path: Path) -> None:
    script = "import atexit, os; atexit.register(lambda: print(os.environ['_RJEM_MALLOC_CONF']))\n"
    script += "from d22kit.cli import main; main(['sync'])"
    bare = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", script], env=bare, cwd=tmp_path, capture_output=True, text=True
    )
    # Polars puts its own settings before those it finds.
    assert done.stdout.endswith(",narenas:1\n")


def test_audit_finds_what_the_service_deleted(service: Simulation) -> None:
    run("sync", "--no-progress")
    assert run("audit").exit_code == 0
    service.tick(deletes=2)
    run("sync", "--no-progress")
    assert run("audit").exit_code == 3
    assert run("audit", "--repair", "all").exit_code == 0


def test_extract_verify_and_report(service: Simulation, tmp_path: Path) -> None:
    run("sync", "--no-progress")
    target = tmp_path / "mail.parquet"
    assert (
        run("extract", str(target), "--where", "platform=EMAIL", "--columns", "public_id,platform").exit_code
        == 0
    )
    assert run("verify", str(target)).exit_code == 0
    target.write_bytes(target.read_bytes()[:-9] + b"123456789")
    assert run("verify", str(target)).exit_code == 3
    page = tmp_path / "report.html"
    assert run("report", str(page), "--tz", "Asia/Dubai").exit_code == 0
    assert page.stat().st_size > 1_000


def test_extract_takes_lists_with_commas_and_repeated_conditions(service: Simulation, tmp_path: Path) -> None:
    run("sync", "--no-progress")
    wide = [
        "--where",
        "platform=EMAIL",
        "--where",
        "platform=SMS, x",
        "--columns",
        "public_id, platform,type",
    ]
    made = json.loads(
        run("extract", str(tmp_path / "hive"), *wide, "--partition-by", "platform,type", "--json").stdout
    )
    assert made["about"]["where"] == {"platform": ["EMAIL", "SMS", "x"]}
    assert made["about"]["columns"] == ["public_id", "platform", "type"]
    assert all(name.startswith("hive/platform=") and "/type=" in name for name in made["sha256"])
    refused = run("extract", str(tmp_path / "x.csv"), "--where", "platform")
    assert (refused.exit_code, "COLUMN=VALUE" in refused.output) == (2, True)


def test_every_time_in_json_is_iso_8601(service: Simulation) -> None:
    run("sync", "--no-progress")
    watermark = json.loads(run("status", "--json").stdout)["watermark"]
    assert datetime.fromisoformat(watermark).isoformat() == watermark


def test_what_is_quarantined_is_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D22KIT_DATA", str(tmp_path))
    store = Store.create(tmp_path, "https://api.example.test lender acme")
    bad = [Quarantined("no public_id", "request-1", f'{{"status": "مرحبا {number}"}}') for number in (1, 2)]
    commit_rows(store, STORED.to_frame(), bad, State())
    lines = [json.loads(line) for line in run("quarantine").stdout.splitlines()]
    assert json.loads(run("quarantine", "--json").stdout) == lines
    assert len(lines) == 2


def test_every_command_has_its_help() -> None:
    for name, command in main.commands.items():
        shown = run(name, "--help")
        assert shown.exit_code == 0
        assert shown.output.startswith(f"Usage: main {name}")
        parameters = inspect.signature(getattr(d22kit, name)).parameters if name != "demo" else {"rows": 0}
        options = {option.name for option in command.params if isinstance(option, click.Option)}
        assert options - {"as_json", "output", "help"} <= set(parameters)


def test_a_defect_is_a_paragraph_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: str | None) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(d22kit, "status", broken)
    result = run("status")
    assert result.exit_code == 1
    assert result.output.startswith("d22kit: ZeroDivisionError: by nothing.")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_cleans_up(
    number: int, code: int, service: Simulation, tmp_path: Path
) -> None:
    run("sync", "--no-progress")
    target = tmp_path / "shared" / "x.parquet"
    target.parent.mkdir()
    # Says when all is written but not yet in its place, and waits there.
    code_of_process = (
        "import signal, sys; from d22kit.extracts import places\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def publish(self, room): print('made', flush=True); sys.stdin.read()\n"
        "places.Target.publish = publish\n"
        "from d22kit.cli import main; main()"
    )
    command = [sys.executable, "-c", code_of_process, "extract", str(target)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"made\n"
        assert list(target.parent.iterdir())
        process.send_signal(number)
        assert process.wait(60) == code
        assert b"Traceback" not in process.stderr.read()
    assert not list(target.parent.iterdir())


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["sync"], 2, "D22KIT_ROOT"),
        (["vacuum", "--keep", "nan"], 2, "no length of time"),
        (["sync", "--lookback", "1e300"], 2, "no length of time"),
        (["simulate", "--port", "99999"], 2, "not in the range"),
        (["status", "--data", "nowhere"], 1, "There is no store at"),
        (["sync", "--nonsense"], 2, "No such option"),
        (["verify", "nothing.parquet"], 1, "nothing.parquet"),
    ],
)
def test_what_is_wrong_is_said_in_one_paragraph(
    words: list[str], code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert result.exit_code == code
    assert says in result.output


def test_wrong_arguments_exit_as_usage(service: Simulation) -> None:
    assert run("sync", "--since", "soon").exit_code == 2
    assert run("sync", "--workers", "0").exit_code == 2
    run("sync", "--no-progress")
    assert "platform" in run("extract", "x.parquet", "--columns", "nope").output


def test_a_wrong_password_is_refused_and_never_shown(
    service: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("D22KIT_PASSWORD", "hunter2-secret")
    result = run("sync")
    assert result.exit_code == 1
    assert "hunter2" not in result.output


def test_the_demo_touches_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    result = run("demo", "--rows", "2000", "--output", str(mine))
    assert result.exit_code == 2
    assert (mine / "thesis.txt").read_text() == "years of work"
    demo = tmp_path / "demo"
    for _ in range(2):
        assert run("demo", "--rows", "2000", "--output", str(demo)).exit_code == 0
    assert (demo / "report.html").is_file()
