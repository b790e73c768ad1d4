"""What every test may use: a small lender, and simulators that stop by themselves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import polars as pl
import pytest
from hypothesis import settings

from d22kit.simulator import Simulation, generate, simulate

settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads the account, or the store, of whoever runs it."""
    for name in [name for name in os.environ if name.startswith("D22KIT_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def _all_at_once() -> Iterator[None]:
    """Have every worker walk from the first page on, also where one is fast enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("d22kit.pages.AT_FIRST", 100)
        yield


@pytest.fixture(scope="session")
def lender_frame() -> pl.DataFrame:
    """20,000 rows of the synthetic lender. Frames do not change: derive your own from it."""
    return generate(20_000, seed=1)


@pytest.fixture
def simulation() -> Iterator[Callable[..., Simulation]]:
    """Start simulators, `simulation(2_000, seed=3)`, that stop when the test ends."""
    with ExitStack() as stack:

        def start(rows: int | pl.DataFrame = 2_000, **options: Any) -> Simulation:
            return stack.enter_context(simulate(rows, **options))

        yield start
