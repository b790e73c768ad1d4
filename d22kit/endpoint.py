"""One request, one page of bytes: who asks, and what happens until there is an answer.

The one module that imports `httpx`. Timeouts and the retry budget are in `Patience`. A failure that may pass
is tried again with exponential backoff and full jitter; a `Retry-After` holds back every worker; a token is
renewed once for all of them.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from types import TracebackType
from typing import TypeVar
from urllib.parse import urlencode

import httpx
import msgspec
import truststore

from d22kit.config import Endpoint
from d22kit.errors import AuthError, ConfigError, EndpointError, ProtocolError
from d22kit.patience import Pace, Patience, TransientError
from d22kit.responses import (
    PAGE,
    Answer,
    Page,
    TooHeavyError,
    http_date,
    lender_refused,
    read_body,
    read_page,
    refusal,
)
from d22kit.sockets import Backend, Cancelled, Watch
from d22kit.times import iso

__all__ = ["Cancelled", "DeadCursorError", "Page", "Patience", "Service", "Stats", "TooHeavyError"]

DEAD_AFTER = 4
NO_CURSOR = (400, 410, 422)
"""What a service may say at once of a cursor it cannot read. D22 says 500, which may also pass."""
REFUSALS = 12
BARREN = 3
"""Tokens in a row that were refused before they brought a page: no further one will do better."""
KEEP_ALIVE = 30.0
LOGIN, REFRESH = "the login", "the renewal of the token"
T = TypeVar("T")


class DeadCursorError(EndpointError):
    """The service refuses this cursor, or fails on it again and again: begin anew from the last row met."""

    @classmethod
    def of(cls, error: EndpointError) -> DeadCursorError:
        """Return an error as one of the cursor."""
        return cls(str(error), status_code=error.status_code, request_id=error.request_id)


@dataclass
class Stats:
    """What a service cost so far: bytes of bodies as read, and seconds all workers were held back."""

    requests: int = 0
    retries: int = 0
    logins: int = 0
    refreshes: int = 0
    bytes: int = 0
    throttled_s: float = 0.0


class _Granted(msgspec.Struct, rename="camel"):
    token: str
    lender_public_id: str | None = None
    refresh_token: str | None = None


@dataclass
class _Pass:
    token: str = field(repr=False)
    refresh: str | None = field(default=None, repr=False)
    given: bool = True
    proven: bool = False
    headers: httpx.Headers = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not (self.token.isascii() and self.token.isprintable()) or " " in self.token:
            raise AuthError("The token holds characters that no HTTP header can carry. Copy it again.")
        self.headers = httpx.Headers({**_ACCEPT, "Authorization": f"Bearer {self.token}"})


_ACCEPT = {"Accept": "application/json", "Accept-Encoding": "gzip"}


class Service:
    """The D22 service as one lender sees it. Safe to share between threads; a context manager.

    Parameters
    ----------
    endpoint
        Where the service is and who asks.
    notify
        Called with a sentence when a wait becomes long enough for a person to wonder.
    cancelled
        Set it to end every wait and request within a moment, with `Cancelled`.
    patience
        Timeouts and the retry budget.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        notify: Callable[[str], None] | None = None,
        cancelled: threading.Event | None = None,
        patience: Patience | None = None,
    ) -> None:
        patience = patience or Patience()
        self._endpoint = endpoint
        self._watch = Watch(cancelled)
        self._pace = Pace(patience, self._watch, notify)
        self._longest_answer = patience.answer
        self._timeout = httpx.Timeout(patience.silence, connect=patience.connect).as_dict()
        self._client = _client(endpoint, Backend(self._watch, self._pace.quiet))
        self._pass = _Pass(endpoint.token) if endpoint.token else None
        self._lender_id = endpoint.lender_id
        self._url: httpx.URL | None = None
        self._auth = threading.Lock()
        self._barren = 0
        self._lock = threading.Lock()
        self._stats = Stats()
        self._date = ""

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def stats(self) -> Stats:
        """What the service cost so far."""
        return replace(self._stats, throttled_s=self._pace.throttled_s)

    @property
    def lender_id(self) -> str:
        """The lender's public id; logs in where it is not known yet."""
        if self._lender_id is None:
            self._ready()
        assert self._lender_id is not None
        return self._lender_id

    def now(self) -> datetime:
        """Return the server's time at its latest answer, rounded up to the whole second.

        Raises
        ------
        ProtocolError
            Where the service does not say what time it is.
        """
        self._ready()
        if not self._date:
            self.page(since=None, until=None, limit=1)
        date = http_date(self._date)
        if date is None:
            raise ProtocolError(
                "The service sends no usable Date header, so its clock is unknown, and this machine's may be "
                "wrong. Give until=... to say where the range ends."
            )
        return date + timedelta(seconds=1)

    def page(
        self,
        *,
        since: datetime | None,
        until: datetime | None,
        cursor: str | None = None,
        limit: int = 1000,
        sort: str = "asc",
        include_total: bool = False,
        stop: threading.Event | None = None,
    ) -> Page:
        """Return one page; waits, retries and renews the token as needed.

        Parameters
        ----------
        since, until
            The half-open range of `updated_at`; None leaves it open.
        cursor
            The previous page's `next_cursor`, with the same range.
        limit
            Rows per page, 1 to 1000.
        sort
            `"asc"` or `"desc"`, on `updated_at`.
        include_total
            Also count the range.
        stop
            Set it to end this call within a moment, with `Cancelled`.

        Raises
        ------
        AuthError
            Where the login, the token or the lender is refused.
        RetriesExhaustedError
            Where the service kept failing.
        TooHeavyError
            Where the range or the limit is too much for the service; not tried again here.
        DeadCursorError
            Where the service refuses this cursor, or fails on it again and again.
        ProtocolError
            Where the service redirects.
        """
        query = {
            "since": since and iso(since),
            "until": until and iso(until),
            "cursor": cursor,
            "limit": limit,
        }
        query |= {"sort": sort, "includeTotal": "true" if include_total else None}
        text = urlencode({name: value for name, value in query.items() if value is not None})
        with self._watch.until(stop):
            return self._persist(lambda: read_page(self._ask(text)), cursor)

    def rest(self, attempt: int, reason: EndpointError, stop: threading.Event | None = None) -> None:
        """Wait before the next attempt at something that failed `attempt` times.

        Raises
        ------
        RetriesExhaustedError
            Where the budget is spent.
        """
        with self._watch.until(stop):
            self._pace.rest(attempt, TransientError.of(reason))
        self._count("retries")

    def _persist(self, ask: Callable[[], T], cursor: str | None = None) -> T:
        deaths = 0
        for attempt in count(1):
            try:
                return ask()
            except TransientError as trouble:
                deaths += cursor is not None and trouble.status_code == 500
                dead = deaths >= DEAD_AFTER
                if not dead or trouble.retry_after is not None:
                    self._pace.rest(attempt, trouble)
                if dead:
                    raise DeadCursorError.of(trouble) from None
                self._count("retries")
            except EndpointError as trouble:
                if cursor is not None and trouble.status_code in NO_CURSOR:
                    raise DeadCursorError.of(trouble) from None
                raise
        raise AssertionError

    def _ask(self, query: str) -> Answer:
        for _ in range(REFUSALS):
            used = self._ready()
            answer = self._get(query, used)
            if answer.status != 401 or lender_refused(answer):
                break
            self._renew(used, answer)
        used.proven = used.proven or answer.status != 401
        if answer.status != 200:
            raise refusal(answer, PAGE)
        return answer

    def _get(self, query: str, used: _Pass) -> Answer:
        if self._url is None:
            self._url = httpx.URL(self._endpoint.export_url(self.lender_id))
        target = b"%s?%s" % (self._url.raw_path, query.encode())
        extensions = {"timeout": self._timeout, "target": target}
        return self._send(httpx.Request("GET", self._url, headers=used.headers, extensions=extensions))

    def _ready(self) -> _Pass:
        if self._pass is None:
            with self._auth:
                self._pass = self._pass or self._login()
        return self._pass

    def _renew(self, used: _Pass, answer: Answer) -> None:
        with self._auth:
            if self._pass is not used:
                return
            if used.given:
                raise AuthError(
                    "The token was refused, and a given token cannot be renewed. Get a new one, or give lender, email "
                    "and password.",
                    status_code=401,
                )
            self._barren = 0 if used.proven else self._barren + 1
            if self._barren >= BARREN:
                raise refusal(answer, PAGE)
            self._pass = self._refreshed(used) or self._login()

    def _login(self) -> _Pass:
        self._count("logins")
        who = {"email": self._endpoint.email, "password": self._endpoint.password}
        granted = self._persist(lambda: self._post(self._endpoint.login_url, who, LOGIN))
        self._lender_id = self._lender_id or granted.lender_public_id
        if self._lender_id is None:
            raise ProtocolError(
                "The login gave a token but no lenderPublicId. Contact the service's support."
            )
        return _Pass(granted.token, granted.refresh_token, given=False)

    def _refreshed(self, used: _Pass) -> _Pass | None:
        if used.refresh is None or not used.proven:
            return None
        self._count("refreshes")
        who = {"refreshToken": used.refresh}
        try:
            granted = self._persist(lambda: self._post(self._endpoint.refresh_url, who, REFRESH))
        except AuthError:
            return None
        return _Pass(granted.token, granted.refresh_token or used.refresh, given=False)

    def _post(self, url: str, who: Mapping[str, str | None], asked: str) -> _Granted:
        extensions = {"timeout": self._timeout}
        answer = self._send(httpx.Request("POST", url, headers=_ACCEPT, json=who, extensions=extensions))
        if answer.status not in (200, 201):
            raise refusal(answer, asked)
        try:
            return msgspec.json.decode(answer.body, type=_Granted)
        except msgspec.MsgspecError as error:
            raise TransientError(f"The service answered {asked} with something else: {error}.") from None

    def _send(self, request: httpx.Request) -> Answer:
        self._pace.turn()
        self._watch.begin(self._longest_answer)
        self._count("requests")
        try:
            response = self._client.send(request, stream=True)
            try:
                body = read_body(response.headers, response.iter_raw())
            finally:
                response.close()
        except httpx.TransportError as error:
            raise self._unreached(error) from None
        answer = Answer(response.status_code, response.headers, body, self._secrets())
        self._arrived(answer)
        return answer

    def _arrived(self, answer: Answer) -> None:
        self._pace.heard()
        self._date = answer.headers.get("date", self._date)
        self._count("bytes", len(answer.body))
        if answer.status == 200:
            self._pace.ease()

    def _unreached(self, error: httpx.TransportError) -> EndpointError:
        message = f"The service at {self._endpoint.root} did not answer: {type(error).__name__}: {error}."
        if "certificate verify failed" in str(error).lower():
            return EndpointError(
                f"{message} TLS is always verified: add the authority to the system's trust store."
            )
        return TransientError(message)

    def _secrets(self) -> tuple[str, ...]:
        held = (self._pass.token, self._pass.refresh) if self._pass else ()
        known = (*held, self._endpoint.password, self._endpoint.email)
        return tuple(secret for secret in known if secret)

    def _count(self, name: str, by: int = 1) -> None:
        with self._lock:
            setattr(self._stats, name, getattr(self._stats, name) + by)


def _client(endpoint: Endpoint, backend: Backend) -> httpx.Client:
    try:
        client = httpx.Client(
            verify=truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            trust_env=endpoint.root.startswith("https:"),
            limits=httpx.Limits(keepalive_expiry=KEEP_ALIVE),
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise ConfigError(f"The proxy that HTTPS_PROXY or ALL_PROXY names cannot be used: {error}") from None
    for transport in (client._transport, *client._mounts.values()):
        if isinstance(transport, httpx.HTTPTransport):  # httpx has no public place for a backend
            transport._pool._network_backend = backend
    return client
