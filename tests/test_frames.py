"""Pages to frames: nothing is lost, odd rows are told apart, and the newest version wins in any order."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from d22kit.frames import _one_by_one, latest_wins, newest, parse, together
from d22kit.schema import FRAME, KEY, VERSION

WHEN = "2026-05-17T06:19:02.905Z"
MOMENT = datetime(2026, 5, 17, 6, 19, 2, 905000, tzinfo=UTC)


def one(**fields: Any) -> dict[str, Any]:
    return {"public_id": "664a1b2c3d4e5f6071829455", "updated_at": WHEN, **fields}


def read(*rows: object) -> dict[str, Any]:
    page = parse([(json.dumps(rows).encode(), "req-1")])
    assert not page.quarantined, page.quarantined
    assert page.frame.schema == FRAME
    return page.frame.row(0, named=True)


def test_the_sample_row_keeps_every_field() -> None:
    sample = {
        **one(platform="EMAIL", purpose="REMINDER", type="OUTBOUND", by="SYSTEM", operation="SEND"),
        "status": "SENT",
        "visibility": "INTERNAL",
        "delivery_status": {"status": "DELIVERED", "code": "250", "error_detail": None},
        "created_at": "2026-05-17T06:18:44.220Z",
    }
    assert read(sample) == {
        **{name: sample[name] for name in FRAME if name in sample},
        "delivery_status": "DELIVERED",
        "delivery_code": "250",
        "delivery_error_detail": None,
        "created_at": datetime(2026, 5, 17, 6, 18, 44, 220000, tzinfo=UTC),
        "updated_at": MOMENT,
        "extra": None,
    }


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-05-17T10:19:02.905+04:00", MOMENT),
        ("2026-05-17T06:19:02.905", MOMENT),
        ("2026-05-17T06:19:02.905123789Z", MOMENT.replace(microsecond=905123)),
        ("2026-05-17T06:19:02Z", MOMENT.replace(microsecond=0)),
        ("2026-05-17", datetime(2026, 5, 17, tzinfo=UTC)),
    ],
)
def test_times_in_every_form_name_the_same_instant(text: str, moment: datetime) -> None:
    assert read(one(updated_at=text))[VERSION] == moment
    assert newest(json.dumps([one(updated_at=text)]).encode()) == moment


@pytest.mark.parametrize("value", [250, 2**70, 1.5, True])
def test_a_number_where_text_is_declared_keeps_its_letters(value: object) -> None:
    assert read(one(delivery_status={"code": value}))["delivery_code"] == json.dumps(value)


@pytest.mark.parametrize("beside", [b"", b',"x":1'])
@pytest.mark.parametrize("digits", [b"0", b"-0", b"-0.0", b"1.50", b"1e400"])
def test_a_number_keeps_its_letters_whatever_its_page_holds(digits: bytes, beside: bytes) -> None:
    page = parse([(b'[{"public_id":"a","updated_at":"2026-05-17","status": %s%s}]' % (digits, beside), None)])
    assert page.frame["status"].to_list() == [digits.decode()]


@pytest.mark.parametrize("delivery", [None, {}, {"status": None}])
def test_an_empty_delivery_status_is_null(delivery: object) -> None:
    row = read(one(delivery_status=delivery))
    assert row["delivery_status"] is row["delivery_code"] is row["delivery_error_detail"] is None


def test_unknown_fields_are_kept_to_the_letter_and_named() -> None:
    rows = b'[{"public_id":"a","updated_at":"2026-05-17","z":{"n":1.50},"delivery_status":{"mx":[1]}}]'
    page = parse([(rows, None)])
    assert page.unknown == {"z", "delivery_status.mx"}
    assert page.frame["extra"].to_list() == ['{"delivery_status":{"mx":[1]},"z":{"n":1.50}}']


def test_an_unreadable_creation_time_is_kept_beside_the_row() -> None:
    row = read(one(created_at="yesterday"))
    assert (row["created_at"], row["extra"]) == (None, '{"created_at":"yesterday"}')


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"updated_at": WHEN}, "public_id is missing or empty"),
        ({"public_id": "", "updated_at": WHEN}, "public_id is missing or empty"),
        ({"public_id": "a"}, "updated_at is missing"),
        ({"public_id": "a", "updated_at": "soon"}, "updated_at is no time: 'soon'"),
        (one(purpose={"a": 1}), "purpose is an object where text is declared"),
        (one(purpose=[1]), "purpose is a list where text is declared"),
        (one(delivery_status="SENT"), "delivery_status is no JSON object"),
        (7, "the row is no JSON object"),
        (None, "the row is no JSON object"),
    ],
)
def test_a_row_that_cannot_be_stored_is_set_apart_with_its_reason(row: object, reason: str) -> None:
    page = parse([(json.dumps([one(), row]).encode(), "req-1")])
    assert page.frame.height == 1
    (bad,) = page.quarantined
    assert (bad.reason, bad.request_id, json.loads(bad.raw)) == (reason, "req-1", row)


def test_empty_pages_are_empty() -> None:
    assert parse([]).frame.equals(FRAME.to_frame())
    for rows in (b"[]", b"[ ]", b"[    ]"):
        assert parse([(rows, None)]).frame.equals(FRAME.to_frame())
        assert newest(rows) is None


def test_a_lone_empty_row_is_set_apart() -> None:
    page = parse([(b"[{}]", "req-1")])
    assert (page.frame.height, page.quarantined[0].raw) == (0, "{}")


def test_long_and_odd_texts_survive() -> None:
    texts = ["x" * 1_000_000, "a\x00b", "مرحبا 👋", '"},{"', ""]
    rows = json.dumps([one(public_id=str(i), purpose=text) for i, text in enumerate(texts)]).encode()
    page = parse([(rows, None)])
    assert page.frame["purpose"].to_list() == texts


def test_nested_times_do_not_pass_for_the_rows_own() -> None:
    later = {"updated_at": "2030-01-01T00:00:00.000Z"}
    for odd in ({"history": [later, later]}, {"purpose": '"},{"updated_at":"2030-01-01T00:00:00.000Z"}'}):
        rows = json.dumps([one(), one(**odd)], separators=(",", ":")).encode()
        assert newest(rows) == MOMENT


values = st.one_of(
    st.none(),
    st.text(max_size=5),
    st.integers(),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
)
offsets = st.sampled_from(["Z", "", "+04:00", "-0930", "+14", " UTC", "789Z", ".5Z"])
moments = st.builds(lambda t, offset: t.isoformat() + offset, st.datetimes(), offsets) | st.sampled_from(
    [
        "2026-06-30T23:59:60Z",
        "2026-05-17t06:19:02z",
        "2026-05-17T06:19Z",
        "2026-05-17T06:19:02 Asia/Dubai",
        "2026-W20-7",
        "24:00",
        "0000-01-01T00:00:00Z",
        "-0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59-05:00",
    ]
)
odd_rows = st.fixed_dictionaries(
    {"public_id": st.text(max_size=3), "updated_at": moments},
    optional={
        "platform": values,
        "new": st.recursive(values, lambda inner: st.lists(inner, max_size=2), max_leaves=3),
        "delivery_status": st.none() | st.dictionaries(st.sampled_from(["status", "code", "mx"]), values),
        "created_at": st.none() | moments,
    },
)


@given(st.lists(st.lists(odd_rows | st.builds(one), max_size=3), max_size=4))
def test_every_row_is_stored_or_set_apart_and_all_ways_agree(pages: list[list[dict[str, Any]]]) -> None:
    raw = [(json.dumps(rows).encode("utf-8", "replace"), f"req-{n}") for n, rows in enumerate(pages)]
    quick = parse(raw)
    assert quick.frame.height + len(quick.quarantined) == sum(map(len, pages))
    for other in (together([parse([page]) for page in raw]), together([_one_by_one(*page) for page in raw])):
        assert_frame_equal(quick.frame, other.frame)
        assert quick.quarantined == other.quarantined
        assert quick.unknown == other.unknown


versions = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=12)


@given(versions, st.randoms())
def test_latest_wins_needs_no_order_and_twice_is_once(pairs: list[tuple[str, int]], random: Any) -> None:
    distinct = list(dict.fromkeys(pairs))
    shuffled = random.sample(distinct, len(distinct))
    schema = {KEY: pl.String, VERSION: pl.Int64}
    frame, other = (pl.DataFrame(rows, schema=schema, orient="row") for rows in (distinct, shuffled))
    once = latest_wins(frame)
    assert once.sort(KEY).equals(latest_wins(other).sort(KEY))
    assert latest_wins(once).equals(once)
    assert dict(once.iter_rows()) == {key: max(v for k, v in pairs if k == key) for key, _ in pairs}


def test_of_two_rows_with_one_key_and_one_time_the_later_arrival_wins() -> None:
    frame = pl.DataFrame({KEY: ["a", "a"], VERSION: [1, 1], "status": ["first", "second"]})
    assert latest_wins(frame)["status"].to_list() == ["second"]
