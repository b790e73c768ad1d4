"""Progress that tells the truth: a bar where someone looks, a line in the log every half minute."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

from d22kit.windows import Window

__all__ = ["Progress"]

log = logging.getLogger("d22kit")

LOG_SECONDS = 30


class Progress:
    """Rows fetched and the share of the time range that is walked.

    Parameters
    ----------
    shown
        Whether to draw a bar; None where there is a terminal or a notebook.
    """

    def __init__(self, shown: bool | None = None) -> None:
        self._shown = _watched() if shown is None else shown
        self._bar: Any = None
        self._windows: dict[int, Window] = {}
        self._origin: datetime | None = None
        self._rows = self._workers = 0
        self._begun = self._logged = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            if kind is None:
                self._bar.n = self._bar.total
            self._bar.refresh()
            self._bar.close()

    def plan(self, windows: Sequence[Window], workers: int) -> None:
        """Begin a pass over these windows."""
        self._workers = workers
        self._windows = {window.id: window for window in windows}
        self._origin = min((window.since for window in windows if window.since), default=None)
        if self._shown and self._bar is None:
            from tqdm.auto import tqdm

            form = "{l_bar}{bar}| {elapsed} elapsed, {remaining} left{postfix}"
            self._bar = tqdm(total=100, desc="sync", bar_format=form)

    def pages(self, rows: int, windows: Iterable[Window], retries: int) -> None:
        """Count the rows of some pages, and see where the windows stand after them."""
        self._rows += rows
        self._windows |= {window.id: window for window in windows}
        if self._origin is None:
            self._origin = min((w.position for w in self._windows.values() if w.position), default=None)
        now = time.monotonic()
        share = self._share()
        facts = {
            "rows": f"{self._rows:,}",
            "rows/s": f"{self._rows / max(now - self._begun, 0.001):,.0f}",
            "workers": min(self._workers, sum(not window.done for window in self._windows.values())),
            "retries": retries,
        }
        if self._bar is not None:
            self._bar.n = max(self._bar.n, round(share * 100, 1))
            self._bar.set_postfix(facts, refresh=False)
            self._bar.update(0)
        if now - self._logged > LOG_SECONDS:
            self._logged = now
            told = ", ".join(f"{label} {value}" for label, value in facts.items())
            left = timedelta(seconds=round((now - self._begun) * (1 - share) / share)) if share else "unknown"
            log.info("sync: %.1f%% of the time range, %s, time left %s", share * 100, told, left)

    def notice(self, text: str) -> None:
        """Show something the user should know now, such as a wait for a service that is gone."""
        # A warning reaches the terminal by itself; beside a bar it would be told twice.
        log.log(logging.WARNING if self._bar is None else logging.INFO, "%s", text)
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)

    def _share(self) -> float:
        """Return how much of the time range is walked; 0 until the first row says where data begins."""
        if self._origin is None:
            return 0.0
        origin, end = self._origin, max(window.stop for window in self._windows.values())
        left = sum(
            (window.stop - max(window.start or origin, origin)).total_seconds()
            for window in self._windows.values()
            if not window.done
        )
        return min(1.0, max(0.0, 1 - left / max((end - origin).total_seconds(), 1)))


def _watched() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return sys.stderr.isatty() or hasattr(shell, "kernel")
