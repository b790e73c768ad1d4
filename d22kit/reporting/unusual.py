"""What was unusual, in words: the alarms of all metrics, put together where they follow one another."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from d22kit.charts._answers import shown, span
from d22kit.questions._metrics import named
from d22kit.questions.anomalies import anomalies

__all__ = ["WATCHED", "Episode", "Unusual", "watch"]

WATCHED = ("volume", "bounce_rate", "failure_rate", "delivery_rate", "inbound_per_100_delivered")
CAUSES = ("bounce_rate", "failure_rate")
APART = timedelta(days=1)
"""Alarms with at most a quiet day between them are one episode."""
MOST = 12


@dataclass(frozen=True, slots=True)
class Episode:
    """A stretch of days that left their usual band: when, what, whose, by how much, and its strongest sentence."""

    metric: str
    label: str
    when: str
    groups: list[str]
    size: str
    text: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Unusual:
    """The episodes, the latest first, and the answers they come from by metric."""

    episodes: list[Episode]
    answers: dict[str, pl.DataFrame]

    @property
    def latest(self) -> list[Episode]:
        """The episodes that a page has room for."""
        return self.episodes[:MOST]

    @property
    def earlier(self) -> int:
        """How many more there are."""
        return len(self.episodes) - len(self.latest)


def watch(frame: pl.DataFrame, ask: dict[str, Any]) -> Unusual:
    """Look for unusual days in each channel."""
    answers = {
        metric: anomalies(frame, metric=metric, by="platform", every="day", **ask) for metric in WATCHED
    }
    found = {metric: _episodes(answer, metric) for metric, answer in answers.items()}
    told = [episode for metric in CAUSES for episode in found[metric]]
    # A fall of deliveries that bounces or failures explain is told once, with its cause.
    found["delivery_rate"] = [e for e in found["delivery_rate"] if not any(_explains(c, e) for c in told)]
    episodes = [episode for metric in WATCHED for episode in found[metric]]
    return Unusual(sorted(episodes, key=lambda e: e.start, reverse=True), answers)


def _episodes(answer: pl.DataFrame, metric: str) -> list[Episode]:
    alarms = answer.filter(pl.col("text").is_not_null()).sort("period_start", "platform")
    new = pl.col("period_start") - pl.col("period_end").cum_max().shift(1) > APART
    numbered = alarms.with_columns(episode=new.fill_null(False).cum_sum())
    return [_episode(part, metric) for part in numbered.partition_by("episode", maintain_order=True)]


def _episode(alarms: pl.DataFrame, metric: str) -> Episode:
    measure = named(metric)
    strongest = alarms.sort(pl.col("excess_rows").abs(), descending=True, maintain_order=True)
    total = alarms["excess_rows"].sum()
    start, end = alarms["period_start"].min(), alarms["period_end"].max()
    assert isinstance(start, datetime)
    assert isinstance(end, datetime)
    return Episode(
        metric=metric,
        label=measure.label,
        when=span(start, end),
        groups=[shown(name) for name in alarms["platform"].unique(maintain_order=True)],
        size=f"about {abs(total):,.0f} {measure.things} {'more' if total > 0 else 'fewer'} than usual",
        text=shown(strongest["text"][0], 300),
        start=start,
        end=end,
    )


def _explains(cause: Episode, fall: Episode) -> bool:
    return set(fall.groups) <= set(cause.groups) and cause.start < fall.end and fall.start < cause.end
