"""Page bytes to typed frames: drift is named, a bad row is set apart, and the newest version wins.

Pages go the short way (a strict check, then Polars' JSON reader, and all of them into types at once) unless
something in one is odd; then its rows are read one by one, so that one odd row costs its page and never a column.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

import arro3.core as arro
import msgspec
import polars as pl

from d22kit.schema import COLUMNS, CREATED, EXTRA, FRAME, KEY, VERSION, VOCABULARY

__all__ = ["Parsed", "Quarantined", "emptied", "latest_wins", "newest", "parse"]

TIMES = tuple(column.name for column in COLUMNS if column.kind == "time")
FLAT = tuple(c for c in COLUMNS if c.path and "." not in c.path)
TAIL = 1 << 16
"""Bytes from the end of a page in which its last row is looked for."""
NESTED = {c.path.split(".")[1]: c.name for c in COLUMNS if "." in c.path}
OBJECT = next(c.path.split(".")[0] for c in COLUMNS if "." in c.path)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A row that cannot be stored: why, which answer brought it, and its JSON as it came."""

    reason: str
    request_id: str | None
    raw: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """A page as a typed frame (`schema.FRAME`), its quarantined rows and the unknown fields it named."""

    frame: pl.DataFrame
    quarantined: list[Quarantined] = field(default_factory=list)
    unknown: frozenset[str] = frozenset()


class _Versioned(msgspec.Struct, gc=False):
    updated_at: str = ""


def _gate(text: Any, key: Any, *, strict: bool) -> msgspec.json.Decoder[Any]:
    """Return a check of a page: declared fields hold `text`, a `key` too; a strict one refuses unknown fields."""

    def struct(name: str, fields: list[tuple[str, Any]]) -> Any:
        optional = [(field, kind | None, None) for field, kind in fields]
        return msgspec.defstruct(name, optional, forbid_unknown_fields=strict, gc=False)

    nested = struct("Nested", [(leaf, text) for leaf in NESTED])
    row = struct("Row", [*((c.path, key if c.name == KEY else text) for c in FLAT), (OBJECT, nested)])
    return msgspec.json.Decoder(list[row])  # type: ignore[valid-type]


_NOT_EMPTY = Annotated[str, msgspec.Meta(min_length=1)]
_WHOLE = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_STRICT = _gate(str, _NOT_EMPTY, strict=True)
_LAX = _gate(str | _WHOLE, _NOT_EMPTY | _WHOLE, strict=False)
_MINUS_ZERO = re.compile(rb"-0[,}\s]")
"""The one whole number that a check takes and Polars' reader spells otherwise."""
_ROWS = msgspec.json.Decoder(list[msgspec.Raw])
_FIELDS_OF_ALL = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_DECLARED = {c.path for c in FLAT} | {OBJECT}
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_MOMENT = arro.DataType.timestamp("us", tz="UTC")
_LAST = msgspec.json.Decoder(_Versioned)
_NEWEST = msgspec.json.Decoder(list[_Versioned])
_JSON_SCHEMA = pl.Schema(
    {**{c.path: pl.String() for c in FLAT}, OBJECT: pl.Struct(dict.fromkeys(NESTED, pl.String()))}
)


def parse(pages: Sequence[tuple[bytes, str | None]]) -> Parsed:
    """Return the rows of pages as one typed frame, in order, with what could not be stored set apart.

    Parameters
    ----------
    pages
        Of each page the JSON text of its `rows` array, and what the service called the answer, which is kept
        with quarantined rows.

    Examples
    --------
    >>> rows = b'[{"public_id": "664a1b2c3d4e5f60718294", "updated_at": "2026-05-17T06:19:02Z"}, 7]'
    >>> page = parse([(rows, "req-1")])
    >>> page.frame.height, page.quarantined[0].reason
    (1, 'the row is no JSON object')
    """
    texts = [_plain(rows) for rows, _ in pages]
    plain = [text for text in texts if text is not None]
    if plain and len(plain) == len(texts):
        # Together: a call costs as much as its work on a page, and has other threads wait.
        with suppress(*_ODD):
            return Parsed(_shape(pl.concat(plain, rechunk=True)))
    return together([_page(*page, text) for page, text in zip(pages, texts, strict=True)])


def together(pages: Sequence[Parsed]) -> Parsed:
    """Return parsed pages as one, in order."""
    frame = pl.concat([FRAME.to_frame(), *(page.frame for page in pages)])
    quarantined = [row for page in pages for row in page.quarantined]
    return Parsed(frame, quarantined, frozenset().union(*(page.unknown for page in pages)))


def newest(rows: bytes) -> datetime | None:
    """Return the `updated_at` up to which a page reaches, or None where no row has a readable one.

    Rows come in order, so it is the last row's; where that has none, the largest of all.
    """
    start = rows.rfind(b"},{", -TAIL)
    try:
        # Only the array's own last element ends exactly where the array does.
        last = _time(_LAST.decode(rows[start + 2 : -1]).updated_at) if start >= 0 else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        last = None
    return last or _largest(rows)


def latest_wins(frame: pl.DataFrame) -> pl.DataFrame:
    """Return one row per key: the newest `updated_at`, and of equal ones the later in the frame.

    A frame that has no key twice comes back as it is.

    Examples
    --------
    >>> rows = pl.DataFrame({"public_id": ["a", "a"], "updated_at": [2, 1], "status": ["SENT", "QUEUED"]})
    >>> latest_wins(rows)["status"].to_list()
    ['SENT']
    """
    if frame[KEY].n_unique() == frame.height:
        return frame
    ordered = frame if frame[VERSION].is_sorted() else frame.sort(VERSION, maintain_order=True)
    return ordered.unique(KEY, keep="last", maintain_order=True)


def emptied(texts: pl.Expr) -> pl.Expr:
    """Return texts of a file whose nulls point at nothing.

    As Polars reads them, nulls may point at some long text, and each counts with its length when they are written
    or handed on: a thousand nulls and one text of a megabyte become a gigabyte.
    """
    return pl.when(texts.is_not_null()).then(texts.fill_null(""))


def _passes(gate: msgspec.json.Decoder[Any], rows: bytes) -> bool:
    try:
        gate.decode(rows)
    except msgspec.ValidationError:
        return False
    return True


def _plain(rows: bytes) -> pl.DataFrame | None:
    """Return the texts of a page, or None where a row has more or other than what is declared."""
    with suppress(*_ODD):
        if _passes(_STRICT, rows):
            return pl.read_json(rows, schema=_JSON_SCHEMA)
    return None


def _page(rows: bytes, request_id: str | None, texts: pl.DataFrame | None) -> Parsed:
    """Return one page, however odd it is."""
    with suppress(*_ODD):
        if texts is not None:
            return Parsed(_shape(texts))
        _LAX.decode(rows)
        if not _MINUS_ZERO.search(rows):
            return _with_extra(_shape(pl.read_json(rows, schema=_JSON_SCHEMA)), rows)
    return _one_by_one(rows, request_id)


def _with_extra(frame: pl.DataFrame, rows: bytes) -> Parsed:
    unknown: set[str] = set()
    extra = [_extra(*_undeclared(fields, unknown)) for fields in _FIELDS_OF_ALL.decode(rows)]
    return Parsed(frame.with_columns(pl.Series(EXTRA, extra, dtype=pl.String)), [], frozenset(unknown))


def _undeclared(fields: dict[str, Any], unknown: set[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what no column declares, of a row and of its nested object; name it in `unknown`."""
    nested = bytes(fields.get(OBJECT, b"null"))
    rest = {name: value for name, value in fields.items() if name not in _DECLARED}
    inner = {} if nested == b"null" else {k: v for k, v in _fields(nested, OBJECT).items() if k not in NESTED}
    unknown.update(rest, (f"{OBJECT}.{leaf}" for leaf in inner))
    return rest, inner


def _shape(raw: pl.DataFrame) -> pl.DataFrame:
    """Flatten the nested object, read the times, and number the words.

    Raises
    ------
    _OddError
        Where a row takes the long way.
    """
    # Series by series: every select would cost a tenth of reading the page.
    columns = {c.name: raw[c.path] for c in FLAT}
    columns |= {NESTED[leaf.name]: leaf for leaf in raw[OBJECT].struct.unnest()}
    columns |= {name: _moments(columns[name]) for name in TIMES}
    columns |= {name: columns[name].cast(pl.Categorical) for name in VOCABULARY}
    columns[EXTRA] = pl.Series([None], dtype=pl.String).new_from_index(0, raw.height)
    if columns[KEY].has_nulls() or columns[VERSION].has_nulls():
        raise _OddError
    return pl.DataFrame([columns[name].alias(name) for name in FRAME])


class _OddError(Exception):
    """A row that only the long way tells right: without key or time, or with a time that is no plain ISO-8601."""


_ODD = (msgspec.MsgspecError, UnicodeDecodeError, pl.exceptions.PolarsError, _OddError)


def _moments(texts: pl.Series) -> pl.Series:
    # Arrow's own reader takes a third of the time of a format string; what it cannot read becomes null.
    moments = pl.Series(arro.Array.from_arrow(texts).cast(_MOMENT))
    try:
        moments.min(), moments.max()
    except (ValueError, OverflowError):  # a year that Python has not
        raise _OddError from None
    if moments.null_count() > texts.null_count():
        raise _OddError
    return moments


def _one_by_one(rows: bytes, request_id: str | None) -> Parsed:
    good: list[dict[str, Any]] = []
    bad: list[Quarantined] = []
    unknown: set[str] = set()
    for raw in _ROWS.decode(rows):
        try:
            good.append(_row(bytes(raw), unknown))
        except _UnusableError as error:
            bad.append(Quarantined(str(error), request_id, bytes(raw).decode("utf-8", "replace")))
    return Parsed(pl.DataFrame(good, schema=FRAME), bad, frozenset(unknown))


class _UnusableError(Exception):
    """A row that cannot be stored; the message is the reason."""


def _row(raw: bytes, unknown: set[str]) -> dict[str, Any]:
    fields = _fields(raw)
    nested = fields.get(OBJECT, b"null")
    inner = _fields(nested, OBJECT) if nested != b"null" else {}
    row: dict[str, Any] = {c.name: _declared(fields.get(c.path, b"null"), c.path) for c in FLAT}
    row |= {name: _declared(inner.get(leaf, b"null"), f"{OBJECT}.{leaf}") for leaf, name in NESTED.items()}
    if not row[KEY]:
        raise _UnusableError(f"{KEY} is missing or empty")
    row[VERSION], text = _time(row[VERSION]), row[VERSION]
    if row[VERSION] is None:
        raise _UnusableError(
            f"{VERSION} is missing" if text is None else f"{VERSION} is no time: {text[:40]!r}"
        )
    row[CREATED], text = _time(row[CREATED]), row[CREATED]
    rest, within = _undeclared(fields, unknown)
    if row[CREATED] is None and text is not None:
        rest[CREATED] = json.dumps(text).encode()
    row[EXTRA] = _extra(rest, within)
    return row


def _extra(fields: dict[str, Any], inner: dict[str, Any]) -> str | None:
    """Return the JSON object of what no column declares, every value to the letter as it came."""
    if inner:
        fields = {**fields, OBJECT: _object(inner)}
    return _object(fields).decode("utf-8", "backslashreplace") if fields else None


def _object(fields: dict[str, Any]) -> bytes:
    pairs = (json.dumps(name).encode() + b":" + bytes(value) for name, value in sorted(fields.items()))
    return b"{" + b",".join(pairs) + b"}"


def _fields(raw: bytes, where: str = "the row") -> dict[str, bytes]:
    try:
        return {name: bytes(value) for name, value in _FIELDS.decode(raw).items()}
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass
    try:
        value = json.loads(raw.decode("utf-8", "backslashreplace"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _UnusableError(f"{where} is no JSON object")
    return {_storable(name): json.dumps(item).encode() for name, item in value.items()}


def _declared(raw: bytes, path: str) -> str | None:
    """Return a declared field as text; a number or a truth value keeps its letters."""
    if raw == b"null":
        return None
    if raw[:1] in b"{[":
        raise _UnusableError(
            f"{path} is {'an object' if raw[:1] == b'{' else 'a list'} where text is declared"
        )
    return _text(raw)


def _text(raw: bytes | msgspec.Raw | None) -> str | None:
    raw = bytes(raw or b"null")
    if raw == b"null":
        return None
    return (
        _storable(json.loads(raw.decode("utf-8", "backslashreplace"), strict=False))
        if raw[:1] == b'"'
        else raw.decode()
    )


def _storable(text: str) -> str:
    # A lone surrogate has no UTF-8 form; its escape keeps what the service sent and any engine reads it.
    return text.encode("utf-8", "backslashreplace").decode()


_FRACTION = re.compile(r"(\.\d{6})\d+")


def _time(text: str | None) -> datetime | None:
    """Return an instant in UTC, microseconds kept and finer digits cut; None where the text is no time."""
    if text is None or len(text) < len("2026-05-17"):
        return None
    try:
        moment = datetime.fromisoformat(_FRACTION.sub(r"\1", text.strip()))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return _as_in_a_page(text)


def _as_in_a_page(text: str) -> datetime | None:
    """Read what only Arrow's reader takes, a leap second for one, so that a row's fate is not its page's."""
    try:
        moment: datetime = _moments(pl.Series([text])).item()
    except _OddError:
        return None
    return moment.astimezone(UTC)


def _largest(rows: bytes) -> datetime | None:
    try:
        return max(filter(None, (_time(row.updated_at) for row in _NEWEST.decode(rows))), default=None)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _largest_of_odd(rows)


def _largest_of_odd(rows: bytes) -> datetime | None:
    times: list[datetime] = []
    for raw in _ROWS.decode(rows):
        try:
            moment = _time(_declared(_fields(bytes(raw)).get(VERSION, b"null"), VERSION))
        except _UnusableError:
            continue
        times += [moment] if moment is not None else []
    return max(times, default=None)
