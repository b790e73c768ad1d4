"""Draws the rows of the synthetic lender: numbers first, words last."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
import pyarrow as pa

from d22kit.schema import CREATED, EXTRA, FRAME, KEY, VERSION
from d22kit.simulator.paths import STEPS, book
from d22kit.simulator.providers import PLATFORMS
from d22kit.simulator.rhythm import DAY, HOUR, Ints, hour_weights, local_day, ms
from d22kit.simulator.scenario import INCIDENTS, NOW, Incident

__all__ = ["Drawn", "draw", "foreign"]

Rng = np.random.Generator

NEVER = np.iinfo(np.int64).max
CAMPAIGN, INBOUND, NOTES = 0.0025, 0.085, 0.003
CAMPAIGN_STOPPED = 72 * 60_000
PURPOSES = sorted({purpose for p in PLATFORMS for purpose in p.purposes})
SYSTEM, AGENT, CUSTOMER, NOTE = range(4)


@dataclass(slots=True)
class Drawn:
    """Rows as numbers: when each was created, which path it takes, and when each step happens."""

    created: Ints
    path: Ints
    purpose: Ints
    role: Ints
    times: Ints
    variant: Ints

    def ids(self, rng: Rng) -> pl.Series:
        """Make an ObjectId for each row: its second, one of a few processes, and a counter."""
        raw = np.empty((len(self.created), 12), np.uint8)
        raw[:, :4] = (self.created // 1000).astype(">u4").view(np.uint8).reshape(-1, 4)
        raw[:, 4:9] = rng.integers(0, 256, (6, 5), np.uint8)[rng.integers(0, 6, len(raw))]
        counter = rng.integers(0, 1 << 23) + np.argsort(np.argsort(self.created, kind="stable"))
        raw[:, 9:] = counter.astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:]
        ends = pa.py_buffer(np.arange(0, 24 * len(raw) + 1, 24))
        text = pa.LargeStringArray.from_buffers(len(raw), ends, pa.py_buffer(raw.tobytes().hex().encode()))
        return pl.Series(KEY, text)

    def stage(self, now: int) -> Ints:
        """How many steps each row has taken by then."""
        stage: Ints = (self.times <= now).sum(axis=1)
        return stage

    def states(self, stage: Ints, at: Ints | slice = slice(None)) -> pl.DataFrame:
        """The words of rows `at` after so many steps."""
        layout = book()
        state = layout.state[self.path[at]] + stage
        text = layout.text_base[state] + self.variant[at] % layout.text_count[state]
        return layout.words[state].with_columns(layout.texts.gather(text))

    def frame(self, ids: pl.Series, now: int) -> pl.DataFrame:
        """The rows as they stand then."""
        stage = self.stage(now)
        last = np.take_along_axis(self.times, np.maximum(stage - 1, 0)[:, None], axis=1)[:, 0]
        return (
            self.states(stage)
            .with_columns(
                ids,
                _instant(CREATED, self.created),
                _instant(VERSION, np.where(stage > 0, last, self.created)),
                _pick("purpose", PURPOSES, self.purpose),
                _pick("type", ["OUTBOUND", "OUTBOUND", "INBOUND", "INTERNAL"], self.role),
                _pick("by", ["SYSTEM", "AGENT", "CUSTOMER", "AGENT"], self.role),
                _pick("visibility", ["INTERNAL", "EXTERNAL", "EXTERNAL", "INTERNAL"], self.role),
                _pick("operation", ["SEND", "SEND", "RECEIVE", "NOTE"], self.role),
                pl.lit(None, pl.String).alias(EXTRA),
            )
            .select(FRAME.names())
            .sort(KEY)
        )

    def changes(self, ids: pl.Series, now: int) -> pl.DataFrame:
        """The steps that come after then, one row each."""
        parts = []
        for step in range(STEPS):
            at = np.flatnonzero((self.times[:, step] > now) & (self.times[:, step] != NEVER))
            change = self.states(np.full(len(at), step + 1), at).drop("platform")
            parts.append(change.with_columns(ids.gather(at), _instant(VERSION, self.times[at, step])))
        return pl.concat(parts).sort(VERSION, KEY)


def _instant(name: str, values: Ints) -> pl.Series:
    return pl.Series(name, values * 1000).cast(FRAME[name])


def _pick(name: str, words: list[str], at: Ints) -> pl.Series:
    return pl.Series(name, words, dtype=FRAME[name]).gather(at)


def draw(
    seed: tuple[int, ...], start: datetime, end: datetime, rows: int, *, incidents: bool
) -> tuple[Drawn, Rng]:
    """Draw `rows` rows created in `[start, end)`: messages, the answers to them, and a few notes."""
    rng = np.random.default_rng(seed)
    inbound, planned = round(INBOUND * rows), round(CAMPAIGN * rows) if incidents else 0
    sent = _messages(rng, ms(start), ms(end), round((1 - NOTES) * (rows - inbound - planned)), incidents)
    parts = [sent, _answers(rng, sent, ms(end), inbound), *[_campaign(rng, planned)][: bool(planned)]]
    parts.append(_notes(rng, ms(start), ms(end), rows - sum(len(part.created) for part in parts)))
    return _joined(parts), rng


def _joined(parts: list[Drawn]) -> Drawn:
    return Drawn(*(np.concatenate([getattr(part, name) for part in parts]) for name in Drawn.__slots__))


def _messages(rng: Rng, start: int, end: int, rows: int, incidents: bool) -> Drawn:
    platform, created = _moments(rng, start, end, rows)
    path = np.empty(rows, np.int64)
    for index, kind in enumerate(PLATFORMS):
        mine = np.flatnonzero(platform == index)
        path[mine] = _lives(rng, kind.name, local_day(created[mine]))
    for incident in INCIDENTS if incidents else ():
        _turn(rng, incident, platform, created, path)
    agents = np.array([p.agent_share for p in PLATFORMS])[platform]
    role = np.where(rng.random(rows) < agents, AGENT, SYSTEM)
    return _rows(rng, created, path, _purposes(rng, platform), role)


def _moments(rng: Rng, start: int, end: int, rows: int) -> tuple[Ints, Ints]:
    """Share the rows out over platforms and hours, with some weather from day to day."""
    hours, weights = hour_weights(start, end)
    day = local_day(hours)
    weights = weights * rng.lognormal(0, 0.06, (len(weights), day[-1] - day[0] + 1))[:, day - day[0]]
    cell = np.repeat(np.arange(weights.size), rng.multinomial(rows, weights.ravel() / weights.sum()))
    hour = hours[cell % len(hours)]
    first, last = np.maximum(hour, start), np.minimum(hour + HOUR, end)
    return cell // len(hours), first + (rng.random(rows) * (last - first)).astype(np.int64)


def _lives(rng: Rng, name: str, day: Ints) -> Ints:
    """Choose a path for each row; the troubled share wobbles from day to day."""
    layout = book()
    paths, shares = layout.paths[name], layout.shares[name]
    good = shares[~layout.trouble[paths]].sum()
    days, nth = np.unique(day, return_inverse=True)
    wobble = rng.lognormal(0, 0.1, len(days))[nth]
    edge = 1 - (1 - good) * wobble
    dice = rng.random(len(day))
    dice = np.where(dice < edge, dice * good / edge, 1 - (1 - dice) / wobble)
    chosen: Ints = paths[np.searchsorted(np.cumsum(shares)[:-1], dice, side="right")]
    return chosen


def _turn(rng: Rng, incident: Incident, platform: Ints, created: Ints, path: Ints) -> None:
    if incident.metric == "volume":
        return
    layout = book()
    mine = np.array([p.name == incident.platform for p in PLATFORMS])[platform]
    hit = mine & (created >= ms(incident.start)) & (created < ms(incident.end))
    at = np.flatnonzero(hit & (rng.random(len(path)) < incident.share))
    path[at] = rng.choice(layout.paths[incident.name], len(at), p=layout.shares[incident.name])


def _purposes(rng: Rng, platform: Ints) -> Ints:
    table = np.array([[p.purposes.get(purpose, 0) for purpose in PURPOSES] for p in PLATFORMS])
    edges = np.cumsum(table / table.sum(axis=1, keepdims=True), axis=1)[:, :-1]
    purposes: Ints = (rng.random(len(platform))[:, None] >= edges[platform]).sum(axis=1)
    return purposes


def _rows(rng: Rng, created: Ints, path: Ints, purpose: Ints, role: Ints) -> Drawn:
    """Give every step its moment: lognormal delays, one after the other."""
    layout = book()
    noise = np.clip(rng.standard_normal((len(path), STEPS)), -3, 3)
    delay = layout.after[path] * np.exp(layout.spread[path] * noise) * 1000
    times = created[:, None] + np.cumsum(np.maximum(delay, 1).astype(np.int64), axis=1)
    times[np.arange(STEPS) >= layout.count[path][:, None]] = NEVER
    return Drawn(created, path, purpose, role, times, rng.integers(0, 1 << 16, len(path)))


def _answers(rng: Rng, sent: Drawn, end: int, rows: int) -> Drawn:
    """Answer so many of the delivered messages; the chance depends on the platform."""
    layout = book()
    at = np.flatnonzero(layout.delivers[sent.path] >= 0)
    reached = sent.times[at, layout.delivers[sent.path[at]]]
    at, reached = at[reached < end - 1], reached[reached < end - 1]
    platform = layout.platform[sent.path[at]]
    after = np.array([p.answer_after for p in PLATFORMS])[platform]
    moment = reached + (after * rng.lognormal(0, 1.3, len(at)) * 1000).astype(np.int64)
    in_time = moment < end
    moment = np.where(in_time, moment, reached + (rng.random(len(at)) * (end - reached)).astype(np.int64))
    chance = np.array([p.answers for p in PLATFORMS])[platform] * np.where(in_time, 1.0, 1e-3)
    won = np.argsort(np.log(rng.random(len(at))) / chance)[len(at) - min(rows, len(at)) :]
    answer = layout.paths["answer"][platform[won]]
    return _rows(rng, moment[won], answer, sent.purpose[at[won]], np.full(len(won), CUSTOMER))


def _campaign(rng: Rng, rows: int) -> Drawn:
    """Draw the campaign that was cancelled at one instant: a tie in `updated_at` longer than a page."""
    incident = INCIDENTS[0]
    start, end = ms(incident.start), ms(incident.end)
    path = np.full(rows, book().paths[incident.name][0])
    created = rng.integers(start, end, rows)
    drawn = _rows(rng, created, path, np.full(rows, PURPOSES.index("PAYMENT_LINK")), np.full(rows, SYSTEM))
    drawn.times[:, 0] = start + CAMPAIGN_STOPPED
    return drawn


def _notes(rng: Rng, start: int, end: int, rows: int) -> Drawn:
    platform, created = _moments(rng, start, end, rows)
    path = book().paths["note"][platform]
    return _rows(rng, created, path, _purposes(rng, platform), np.full(rows, NOTE))


def foreign(seed: int, rows: int) -> pl.DataFrame | None:
    """Draw keys of other lenders' rows: bursts over three years, so that pages run short or empty."""
    if not rows:
        return None
    rng = np.random.default_rng((seed, 0, 2))
    burst = ms(NOW) - rng.integers(0, 1100, 60)[rng.integers(0, 60, rows)] * DAY
    times = np.minimum(burst + (rng.standard_normal(rows) * DAY).astype(np.int64), ms(NOW))
    return pl.DataFrame({VERSION: times * 1000, KEY: [rng.bytes(12).hex() for _ in range(rows)]})
