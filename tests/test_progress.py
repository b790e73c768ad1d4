"""Progress: what it says is so, in a bar where someone looks and in the log elsewhere."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest

from d22kit import progress
from d22kit.progress import Progress
from d22kit.windows import Window, advance, split

START = datetime(2026, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)
WHOLE = Window(1, since=START, until=START + 10 * DAY, stop=START + 10 * DAY)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.INFO]


@pytest.fixture(autouse=True)
def _every_page(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(progress, "LOG_SECONDS", -1)
    caplog.set_level(logging.INFO, "d22kit")


def test_the_log_tells_rows_share_workers_retries_and_the_time_left(caplog: pytest.LogCaptureFixture) -> None:
    with Progress(shown=False) as bar:
        bar.plan([WHOLE], workers=4)
        early, late = split(advance(WHOLE, "next", START + DAY), START + 5 * DAY, 2)
        bar.pages(1_000, [early, late], retries=3)
        bar.pages(500, [advance(late, None, START + 9 * DAY)], retries=3)
    first, second = lines(caplog)
    assert first.startswith("sync: 10.0% of the time range, rows 1,000, rows/s ")
    assert "workers 2, retries 3, time left " in first
    assert second.startswith("sync: 60.0% of the time range, rows 1,500, ")
    assert "workers 1" in second


def test_nothing_is_promised_before_it_is_known_where_data_begins(caplog: pytest.LogCaptureFixture) -> None:
    with Progress(shown=False) as bar:
        bar.plan([Window(1, since=None, until=START, stop=START)], workers=1)
        bar.pages(0, [], retries=0)
    assert lines(caplog)[0].startswith("sync: 0.0% of the time range, ")
    assert lines(caplog)[0].endswith("time left unknown")


def test_the_bar_shows_the_same_and_a_notice_stands_above_it(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with Progress(shown=True) as bar:
        bar.plan([WHOLE], workers=4)
        bar.pages(1_000, [advance(WHOLE, "next", START + 4 * DAY)], retries=0)
        bar.notice("The service is gone; the next attempt is in 30 s.")
        bar.pages(1_000, [advance(WHOLE, None, START + 9 * DAY)], retries=1)
    shown = capsys.readouterr().err
    assert "The service is gone" in shown
    assert "100%" in shown
    assert "rows=2,000" in shown
    assert "retries=1" in shown
    assert "The service is gone" in caplog.text


def test_nothing_is_drawn_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as bar:
        bar.plan([WHOLE], workers=1)
        bar.pages(1, [], retries=0)
    assert capsys.readouterr() == ("", "")
