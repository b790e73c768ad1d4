"""A synthetic lender in Dubai: 400 believable days of conversation rows, the same for the same seed."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

from d22kit.errors import InputError
from d22kit.simulator.scenario import DAYS, INCIDENTS, NOW, Incident

__all__ = ["INCIDENTS", "NOW", "Incident", "generate", "history", "later"]


def generate(rows: int, seed: int = 0, *, incidents: bool = True) -> pl.DataFrame:
    """Return the current rows of a synthetic lender, sorted by `public_id`.

    Parameters
    ----------
    rows
        How many, spread over the 400 days before `NOW`.
    seed
        Another seed is another lender; the same one gives the same rows, on every machine.
    incidents
        Whether the `INCIDENTS` happen. Without them the lender is quiet, for tests of false alarms.

    Returns
    -------
    polars.DataFrame
        The columns and types of `d22kit.schema.FRAME`.

    Examples
    --------
    >>> generate(1000, seed=7).shape
    (1000, 14)
    """
    return history(rows, seed, incidents=incidents)[0]


def history(rows: int, seed: int = 0, *, incidents: bool = True) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows as they stand at `NOW`, and the changes that are still to come to them."""
    if rows < 0 or seed < 0:
        raise InputError(f"rows={rows} and seed={seed}: both are whole numbers, 0 or more.")
    return later((seed,), NOW - timedelta(days=DAYS), NOW, rows, incidents=incidents)


def later(
    seed: tuple[int, ...], start: datetime, end: datetime, rows: int, *, incidents: bool = False
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return rows created in `[start, end)` as they stand at `end`, and the changes to come to them."""
    from d22kit.simulator.drawing import draw
    from d22kit.simulator.rhythm import ms

    drawn, rng = draw(seed, start, end, rows, incidents=incidents)
    ids = drawn.ids(rng)
    return drawn.frame(ids, ms(end)), drawn.changes(ids, ms(end))
