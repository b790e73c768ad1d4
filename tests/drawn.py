"""Charts of the gallery's lenders, drawn once, and ways to look into them."""

from __future__ import annotations

from functools import cache
from typing import Any

import polars as pl
from gallery import DRAWN, lenders

WHO = ("simulator", "tiny", "huge", "weird")


@cache
def chart(who: str, name: str) -> Any:
    return DRAWN[name](lenders()[who])


@cache
def spec(who: str, name: str) -> dict[str, Any]:
    return chart(who, name).to_dict()  # type: ignore[no-any-return]  # valid: Altair checks the schema of Vega-Lite


def texts(value: Any) -> list[str]:
    """Every string of a specification, keys left out."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


def data(drawn: dict[str, Any] | Any) -> pl.DataFrame:
    """All the data of a chart or its specification, as one frame."""
    found = drawn if isinstance(drawn, dict) else drawn.to_dict()
    rows = [row for rows in found["datasets"].values() for row in rows]
    return pl.DataFrame(rows, infer_schema_length=None)


def layers(drawn: dict[str, Any]) -> list[dict[str, Any]]:
    """The single views of a specification."""
    parts = [part for kind in ("layer", "concat", "hconcat", "vconcat") for part in drawn.get(kind, ())]
    return [view for part in parts for view in layers(part)] or [drawn]
