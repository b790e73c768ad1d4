"""What an answer of the service means: a page, or which error. Pure: bytes in, meaning out.

A 200 is a page only when its body is one whole envelope with rows and the word on what comes next.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from d22kit.errors import AuthError, EndpointError, ProtocolError
from d22kit.patience import TransientError

__all__ = [
    "PAGE",
    "Answer",
    "Page",
    "TooHeavyError",
    "http_date",
    "lender_refused",
    "read_body",
    "read_page",
    "refusal",
]

PAGE = "a page of D22"
LARGEST_BODY = 16 << 20
"""Forty times a usual page. Every worker may hold one, and a page past it is asked for again with fewer rows."""
MARGIN = 0.05
LONGEST_QUOTE = 300
PASSING = (408, 425, 429, 502, 503)
_NO_LENDER = re.compile(r"lender.*(not found|inactive)", re.IGNORECASE | re.DOTALL)
_NO_DATABASE = re.compile(
    r"\bno\b.*\bdatabase\b|\bdatabase\b.*\bnot (found|configured)", re.IGNORECASE | re.DOTALL
)
_ESCAPE = re.compile(rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u[dD][89a-fA-F]..|\\.", re.DOTALL)


class TooHeavyError(EndpointError):
    """The request was too much: a 504, or a body past the limit. Ask for a narrower window or fewer rows."""

    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, its headers, a whole, decoded body, and the words that no message may repeat."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Page:
    """One page: the JSON text of its rows, and the cursor of the next page, None at the end.

    The total and its notes are there when they were asked for.
    """

    rows: bytes = field(repr=False)
    next_cursor: str | None
    request_id: str | None = None
    total: int | None = None
    total_exact: bool | None = None
    total_note: str | None = None


class _Pagination(msgspec.Struct, rename="camel"):
    next_cursor: str | None
    total: Any = None
    total_exact: Any = None
    total_note: Any = None


class _Body(msgspec.Struct):
    rows: msgspec.Raw
    pagination: _Pagination


class _Envelope(msgspec.Struct, rename="camel"):
    body: _Body
    code: Any = None
    success: Any = None
    errors: Any = None
    request_id: Any = None


class _Fault(msgspec.Struct, rename="camel"):
    message: Any = None
    request_id: Any = None


_envelope = msgspec.json.Decoder(_Envelope).decode
_fault = msgspec.json.Decoder(_Fault).decode


def read_body(headers: Mapping[str, str], parts: Iterable[bytes]) -> bytes:
    """Return a body as it was before it was sent, and never hold one past the limit.

    Raises
    ------
    TooHeavyError
        Where the body, or what a small one swells to, is past the limit.
    TransientError
        Where it is cut, or in an encoding that was not asked for.
    """
    announced = headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > LARGEST_BODY:
        raise _too_large()
    kept, size = [], 0
    for part in parts:
        size += len(part)
        if size > LARGEST_BODY:
            raise _too_large()
        kept.append(part)
    raw = b"".join(kept)
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding == "identity":
        return raw
    if encoding != "gzip":
        raise TransientError(
            f"The service sent a body in the encoding {encoding[:20]!r}, which was not asked for."
        )
    return _inflated(raw)


def _inflated(raw: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=31)
    try:
        body = inflater.decompress(raw, LARGEST_BODY + 1)
    except zlib.error as error:
        raise TransientError(f"The service sent a body that is no gzip: {error}.") from None
    if len(body) > LARGEST_BODY:
        raise _too_large()
    if not inflater.eof:
        raise TransientError("The service sent a cut gzip body.")
    return body


def _too_large() -> TooHeavyError:
    return TooHeavyError(f"The service sent a body larger than {LARGEST_BODY >> 20} MB.")


def read_page(answer: Answer) -> Page:
    """Return the page that an answer with status 200 holds.

    Raises
    ------
    TransientError
        Where the body is no whole page; never an empty page in its place.
    """
    try:
        envelope = _decoded(answer.body)
        problem = _problem(envelope)
    except msgspec.MsgspecError as error:
        problem = str(error) if answer.body.strip() else "the body is empty"
    if problem:
        message, request_id = _said(answer)
        raise TransientError(
            f"The service answered 200, but with no whole page: {problem}.{message}",
            status_code=200,
            request_id=request_id,
        )
    return _page(envelope, answer)


def _decoded(body: bytes) -> _Envelope:
    try:
        return _envelope(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return _envelope(_ESCAPE.sub(_whole, body))


def _whole(escape: re.Match[bytes]) -> bytes:
    """Half of a surrogate pair alone is no character; it becomes the replacement character."""
    text = escape[0]
    return rb"\ufffd" if len(text) == 6 else text


def _problem(envelope: _Envelope) -> str | None:
    if envelope.success is False or envelope.errors or (envelope.code or 200) not in (200, "200"):
        return "its envelope tells of an error"
    if memoryview(envelope.body.rows)[0] != ord("["):
        return "body.rows is no array"
    if envelope.body.pagination.next_cursor == "":
        return "body.pagination.nextCursor is empty, neither a cursor nor null"
    return None


def _page(envelope: _Envelope, answer: Answer) -> Page:
    pagination = envelope.body.pagination
    return Page(
        bytes(envelope.body.rows),
        pagination.next_cursor,
        _text(envelope.request_id) or answer.headers.get("x-request-id"),
        pagination.total if type(pagination.total) is int else None,
        pagination.total_exact if isinstance(pagination.total_exact, bool) else None,
        _text(pagination.total_note),
    )


def refusal(answer: Answer, asked: str) -> EndpointError:
    """Return the error that an answer other than 200 means.

    Parameters
    ----------
    answer
        What the service said.
    asked
        What was asked for: `PAGE`, or something of the login.
    """
    status = answer.status
    said, request_id = _said(answer)
    message = f"The service answered {status} to {asked}.{said}"
    known: dict[str, Any] = {"status_code": status, "request_id": request_id}
    if 300 <= status < 400:
        return ProtocolError(f"{message} {_REDIRECT}", **known)
    if status in (401, 403) or (asked != PAGE and 400 <= status < 500 and status not in PASSING):
        return AuthError(f"{message} {_REFUSED.get(status, _REFUSED[401])}", **known)
    if status == 504 and asked == PAGE:
        heavy = TooHeavyError(message, retryable=True, **known)
        heavy.retry_after = retry_after(answer)
        return heavy
    if status == 500 and _NO_DATABASE.search(said):
        return EndpointError(f"{message} Contact the service's support.", **known)
    if status >= 500 or status in PASSING or status < 300:
        return TransientError(message, retry_after=retry_after(answer), **known)
    return EndpointError(f"{message} {_REFUSED.get(status, _REFUSED[400])}", **known)


def lender_refused(answer: Answer) -> bool:
    """Return whether a 401 speaks of the lender, so that no new token can help."""
    return _NO_LENDER.search(_said(answer)[0]) is not None


_REDIRECT = (
    "A redirect is never followed, since it would carry the token to another address. Check the root of the "
    "endpoint, and whether a proxy or a sign-on page stands between."
)
_REFUSED = {
    400: "The request is not one the service accepts; please report this with the request's id.",
    401: "Check the credentials, and that the lender is active; else contact the service's support.",
    403: "The lender_id does not belong to this login: check lender and lender_id.",
    404: "The lender's D22 is not there: check root and lender, or ask the service's support to enable it.",
}


def retry_after(answer: Answer) -> float | None:
    """Return the seconds an answer asks to wait; a date counts from the server's own clock."""
    value = answer.headers.get("retry-after", "").strip()
    if value.isdecimal() and value.isascii():
        return float(value) + MARGIN
    until, now = http_date(value), http_date(answer.headers.get("date", ""))
    if until is None or now is None:
        return None
    return max(0.0, (until - now).total_seconds()) + MARGIN


def http_date(text: str) -> datetime | None:
    """Return the instant of an HTTP date, or None where it is none."""
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)


def _said(answer: Answer) -> tuple[str, str | None]:
    try:
        fault = _fault(answer.body)
    except msgspec.MsgspecError:
        fault = _Fault()
    message = _text(fault.message)
    request_id = _text(fault.request_id) or answer.headers.get("x-request-id")
    said = f' It said: "{_quote(message, answer.secrets)}".' if message else ""
    mark = f" requestId: {_quote(request_id, answer.secrets)}." if request_id else ""
    return said + mark, request_id


def _quote(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, "…")
    plain = "".join(char if char.isprintable() else " " for char in text)
    return plain if len(plain) <= LONGEST_QUOTE else plain[:LONGEST_QUOTE] + "…"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
