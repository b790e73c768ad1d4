"""The command line: exit codes, one-paragraph errors, and JSON for machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from d22kit.cli import main
from d22kit.simulator import Simulation, simulate


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


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["sync"], 2, "D22KIT_ROOT"),
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
