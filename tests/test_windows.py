"""Windows only shrink and split, and what is left of a range is exactly what is not covered."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise

from hypothesis import given
from hypothesis import strategies as st

from d22kit.windows import EPOCH, Window, add, advance, anew, from_epoch, halve, missing, narrow, split

LAST = 40
ticks = st.integers(0, LAST)
intervals = st.tuples(st.none() | ticks, ticks)


def at(tick: int) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=tick)


def span(pair: tuple[int | None, int]) -> tuple[datetime | None, datetime]:
    return (None if pair[0] is None else at(pair[0]), at(pair[1]))


def inside(pairs: list[tuple[datetime | None, datetime]]) -> set[int]:
    """Return the ticks that lie in any of the intervals; -1 stands for the time before them all."""
    return {
        tick
        for tick in range(-1, LAST)
        for start, end in pairs
        if (start is None or start <= at(tick)) and at(tick) < end
    }


def parts(*windows: Window) -> list[tuple[datetime | None, datetime]]:
    return [(window.since, window.stop) for window in windows]


def disjoint(*windows: Window) -> bool:
    return sum(len(inside([pair])) for pair in parts(*windows)) == len(inside(parts(*windows)))


@st.composite
def windows(draw: st.DrawFn) -> Window:
    since = draw(st.none() | st.integers(0, LAST - 2))
    stop = draw(st.integers((since or 0) + 2, LAST))
    position = draw(st.none() | st.integers(since or 0, stop - 1))
    return Window(
        7,
        since if since is None else at(since),
        at(LAST),
        at(stop),
        "c",
        position if position is None else at(position),
    )


@given(st.lists(intervals, max_size=6))
def test_covered_intervals_hold_what_was_added_and_stay_apart(pairs: list[tuple[int | None, int]]) -> None:
    covered: tuple[tuple[datetime | None, datetime], ...] = ()
    for pair in pairs:
        covered = add(covered, span(pair))
    assert inside(list(covered)) == inside([span(pair) for pair in pairs])
    assert all(end < start for (_, end), (start, _) in pairwise(covered))


@given(st.lists(intervals, max_size=6), intervals)
def test_missing_is_the_interval_without_what_is_covered(
    pairs: list[tuple[int | None, int]], wanted: tuple[int | None, int]
) -> None:
    covered = [span(pair) for pair in pairs]
    gaps = list(missing(covered, span(wanted)))
    assert inside(gaps) == inside([span(wanted)]) - inside(covered)
    for gap in gaps:
        covered = list(add(covered, gap))
    assert missing(covered, span(wanted)) == ()


@given(windows(), st.integers(1, LAST))
def test_a_split_partitions_the_window(window: Window, tick: int) -> None:
    middle = halve(window)
    if middle is None:
        assert window.start is not None
        assert window.stop - window.start < timedelta(milliseconds=2)
        return
    first, rest = split(window, middle, 8)
    assert inside(parts(first, rest)) == inside(parts(window))
    assert disjoint(first, rest)
    assert first.cursor == "c"
    assert first.until == window.until, "a cursor goes back with the filter it came from"
    assert (rest.cursor, rest.until, rest.stop) == (None, window.until, window.stop)


@given(windows(), st.integers(0, LAST))
def test_a_new_start_partitions_the_window_and_keeps_what_was_met(window: Window, tick: int) -> None:
    reach = max(at(tick), (window.start or at(0)) + timedelta(milliseconds=1))
    ids = count(8)
    met, fresh = anew(window, ids)
    assert (fresh.cursor, fresh.until, fresh.stop) == (None, window.until, window.stop)
    current, rest = narrow(fresh, reach, ids)
    assert inside(parts(*met, current, *rest)) == inside(parts(window))
    assert disjoint(*met, current, *rest)
    assert all(part.done for part in met)
    assert current.cursor is None
    assert current.until == current.stop, "without a cursor the filter is as narrow as the walk"
    assert current.since == (window.position if met else window.since)
    assert len({part.id for part in (*met, current, *rest)}) == len((*met, current, *rest))


@given(windows(), st.none() | st.text(min_size=1), st.none() | ticks)
def test_a_page_ends_a_window_only_at_its_stop_or_without_a_cursor(
    window: Window, cursor: str | None, newest: int | None
) -> None:
    after = advance(window, cursor, None if newest is None else at(newest))
    believed = newest is not None and at(newest) < window.until
    assert after.done == (cursor is None or (believed and newest is not None and at(newest) >= window.stop))
    assert after.cursor == (None if after.done else cursor)
    assert window.start is None or (after.start is not None and after.start >= window.start)


def test_a_row_exactly_at_the_stop_belongs_to_the_later_window() -> None:
    first, rest = split(Window(0, at(0), at(40), at(40), "c", at(5)), at(20), 1)
    assert not advance(first, "d", at(19)).done
    assert advance(first, "d", at(20)).done
    assert rest.since == at(20)


def test_what_lies_before_every_possible_row_is_cut_off_once() -> None:
    before, rest = from_epoch(Window(0, None, at(9), at(9)), count(1))
    assert parts(*before, rest) == [(None, EPOCH), (EPOCH, at(9))]
    assert from_epoch(before[0], count(2)) == ((), before[0])


@given(windows())
def test_a_window_survives_json(window: Window) -> None:
    assert Window.from_json(json.loads(json.dumps(window.to_json()))) == window
