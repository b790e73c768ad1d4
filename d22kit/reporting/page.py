"""The page itself: one template, filled with texts that are escaped wherever they come to stand."""

from __future__ import annotations

from datetime import timedelta
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

import jinja2
import polars as pl

from d22kit.charts import theme
from d22kit.charts._answers import span
from d22kit.charts.offline import script
from d22kit.schema import CREATED

__all__ = ["created_range", "render"]


def render(**parts: Any) -> str:
    """Return the page. Specifications pass through `tojson`, which leaves nothing that could end a script."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("d22kit.reporting").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(**parts, scripts=script(), theme=theme)


def created_range(frame: pl.DataFrame, zone: str) -> str:
    """Return the local days that the rows were created in."""
    times = frame[CREATED].drop_nulls()
    if times.is_empty():
        return "no rows"
    local = times.dt.convert_time_zone(str(ZoneInfo(zone)))
    first, last = local.min(), local.max()
    return span(first, last + timedelta(microseconds=1))  # type: ignore[operator]
