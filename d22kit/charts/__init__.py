"""Charts take answers: `df.pipe(d22kit.volume, by="platform").pipe(d22kit.charts.volume)`.

Each chart has the name of its answer and is an ordinary Altair chart: compose it with `|` and `&` (one of a single
panel with `+` too), and save it with `.save("volume.png")`. `enable()` turns on the theme and offline rendering.
"""

from __future__ import annotations

from d22kit.charts import theme
from d22kit.charts.board import overview
from d22kit.charts.change import anomalies, compare
from d22kit.charts.dialogue import engagement
from d22kit.charts.hours import contact_hours
from d22kit.charts.offline import enable
from d22kit.charts.outcomes import bounces, delivery
from d22kit.charts.traffic import share, volume
from d22kit.charts.waits import time_to_last_update
from d22kit.charts.week import heatmap

__all__ = [
    "anomalies",
    "bounces",
    "compare",
    "contact_hours",
    "delivery",
    "enable",
    "engagement",
    "heatmap",
    "overview",
    "share",
    "theme",
    "time_to_last_update",
    "volume",
]
