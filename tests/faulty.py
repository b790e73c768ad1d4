"""A D22 service on loopback that fails by script, slices a list of records, and writes down what no client may do."""

from __future__ import annotations

import base64
import json
import random
import socket
import ssl
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import parse_qsl, urlsplit

from d22kit.config import Endpoint

LENDER = "0b6d9a3e-5c1f-4c0e-9b7a-2f1d3c4b5a69"
START = datetime(2025, 1, 1, tzinfo=UTC)
ODD = " +/=&%é?#\"'"


@dataclass(frozen=True)
class Record:
    """A row of the export: what a page shows, and whether its parent belongs to the lender."""

    at: datetime
    id: int
    shown: bool = True

    @property
    def json(self) -> dict[str, object]:
        return {"public_id": f"{self.id:024x}", "updated_at": stamp(self.at)}


@dataclass
class Request:
    """One request as it came, and when."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def is_page(self) -> bool:
        return "/exports/" in self.target


Reply = bytes | Callable[[socket.socket], None]


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def newest(rows: bytes) -> datetime | None:
    times = [row["updated_at"] for row in json.loads(rows)]
    return max((datetime.fromisoformat(at) for at in times), default=None)


def records(number: int, step: timedelta = timedelta(minutes=1), start: datetime = START) -> list[Record]:
    return [Record(start + n * step, n) for n in range(number)]


def reply(status: int, body: object, headers: dict[str, str] | None = None) -> bytes:
    """Return a whole HTTP response; a `bytes` body is sent as it is."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"Date": format_datetime(datetime.now(UTC), usegmt=True), "Content-Length": str(len(raw))}
    head = "".join(f"{name}: {value}\r\n" for name, value in {**lines, **(headers or {})}.items())
    return f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode() + raw


def failure(status: int, message: str = "no luck", headers: dict[str, str] | None = None) -> bytes:
    return reply(status, {"success": False, "message": message, "requestId": f"req-{status}"}, headers)


def envelope(rows: Iterable[object], cursor: str | None, **pagination: object) -> dict[str, object]:
    pages = {"nextCursor": cursor, **pagination}
    return {
        "code": 200,
        "message": "ok",
        "body": {"rows": list(rows), "pagination": pages, "meta": {}},
        "errors": [],
    }


class Faulty:
    """The service. `fault` sees every request first and may answer in its place.

    Parameters
    ----------
    rows
        The records behind the export, in any order.
    fault
        Returns a whole response, or what to do with the socket, or None for the usual answer.
    latency
        Seconds before each page.
    token_lasts
        How many pages a token is good for.
    tls
        Serves HTTPS with it.
    """

    def __init__(
        self,
        rows: Iterable[Record] = (),
        fault: Callable[[Request], Reply | None] | None = None,
        *,
        latency: float = 0.0,
        token_lasts: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._keep(sorted(rows, key=lambda row: (row.at, row.id)))
        self.fault = fault or (lambda request: None)
        self.latency = latency
        self.token_lasts = token_lasts
        self.requests: list[Request] = []
        self.wrong: list[str] = []
        self.tokens: dict[str, int] = {}
        self.refresh_works = True
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._open: set[socket.socket] = set()
        self._tls = tls
        self.port = self._listener.getsockname()[1]
        self.root = f"https://localhost:{self.port}" if tls else f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Faulty:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                connection.close()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(root=self.root, lender="acme", email="ana@acme.example", password="s3cret-pass")

    @property
    def pages(self) -> list[Request]:
        return [request for request in self.requests if request.is_page]

    @property
    def truth(self) -> set[str]:
        return {str(row.json["public_id"]) for row in self.rows if row.shown}

    def _keep(self, rows: list[Record]) -> None:
        self._table = rows, [(row.at, row.id) for row in rows]

    @property
    def rows(self) -> list[Record]:
        return self._table[0]

    def write(self, rnd: random.Random) -> None:
        """Change a row, which moves to the end, or add one."""
        rows = list(self.rows)
        changed = rows.pop(rnd.randrange(len(rows))) if rnd.random() < 0.7 else Record(START, len(rows))
        self._keep([*rows, replace(changed, at=rows[-1].at + timedelta(milliseconds=1))])

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        if self._tls:
            try:
                connection = self._tls.wrap_socket(connection, server_side=True)
            except OSError:
                return
        reader = connection.makefile("rb")
        try:
            while (request := _read_request(reader)) is not None:
                with self._lock:
                    self.requests.append(request)
                answer = self.fault(request) or self._answer(request)
                if isinstance(answer, bytes):
                    connection.sendall(answer)
                else:
                    answer(connection)
        except OSError:
            pass
        finally:
            reader.close()
            connection.close()
            with self._lock:
                self._open.discard(connection)

    def _answer(self, request: Request) -> bytes:
        path = urlsplit(request.target).path
        if path == "/admin/auth/acme/login":
            return self._login(request)
        if path == "/admin/auth/acme/refresh-token":
            return self._refresh(request)
        if path != f"/admin/v3/lenders/{LENDER}/exports/S4/D22":
            return failure(404, "unknown dataset")
        return self._page(request)

    def _login(self, request: Request) -> bytes:
        if json.loads(request.body) != {"email": "ana@acme.example", "password": "s3cret-pass"}:
            return failure(401, "wrong credentials")
        granted = {"token": self._grant(), "refreshToken": "refresh-me", "lenderPublicId": LENDER}
        return reply(200, granted)

    def _refresh(self, request: Request) -> bytes:
        if not self.refresh_works or json.loads(request.body) != {"refreshToken": "refresh-me"}:
            return failure(401, "refresh token is not valid")
        return reply(200, {"token": self._grant()})

    def _grant(self) -> str:
        with self._lock:
            token = f"token-{len(self.tokens)}"
            self.tokens[token] = 0
        return token

    def _page(self, request: Request) -> bytes:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        self._judge(request, token)
        with self._lock:
            used = self.tokens.get(token)
            if used is None or (self.token_lasts is not None and used >= self.token_lasts):
                return failure(401, "token invalid or expired")
            self.tokens[token] = used + 1
        if self.latency:
            time.sleep(self.latency)
        return self.slice(request.query)

    def _judge(self, request: Request, token: str) -> None:
        query = request.query
        if any(secret in request.target for secret in ("s3cret", "ana@", "refresh-me", token or "token-")):
            self.wrong.append(f"a secret in {request.target}")
        if not 1 <= int(query.get("limit", "500")) <= 1000:
            self.wrong.append(f"limit {query['limit']}")
        if "cursor" in query and _opened(query) is None:
            self.wrong.append(f"an altered cursor, or another filter: {request.target}")

    def slice(self, query: dict[str, str]) -> bytes:
        """Answer as the contract says: a page may hold fewer rows than it looked at, or none."""
        rows, keys = self._table
        first = _place(keys, query.get("since"), 0)
        last = _place(keys, query.get("until"), len(keys))
        if "cursor" in query:
            key = _opened(query)
            if key is None:
                return failure(500, "corrupt cursor")
            first = bisect_left(keys, (key[0], key[1] + 1))
        end = min(first + int(query.get("limit", "500")), last)
        cursor = None if end >= last else _cursor(query, *keys[end - 1])
        return reply(200, envelope((row.json for row in rows[first:end] if row.shown), cursor))


def _place(keys: list[tuple[datetime, int]], bound: str | None, default: int) -> int:
    return default if bound is None else bisect_left(keys, (datetime.fromisoformat(bound), -1))


def _cursor(query: dict[str, str], at: datetime, id: int) -> str:
    """An opaque cursor that knows its filter, full of what is easily spoilt in a URL."""
    inside = json.dumps([at.isoformat(), id, query.get("since"), query.get("until")])
    return base64.b64encode(inside.encode()).decode() + ODD


def _opened(query: dict[str, str]) -> tuple[datetime, int] | None:
    try:
        at, id, since, until = json.loads(base64.b64decode(query["cursor"].removesuffix(ODD), validate=True))
    except ValueError:
        return None
    same = (since, until) == (query.get("since"), query.get("until"))
    return (datetime.fromisoformat(at), id) if same and query["cursor"].endswith(ODD) else None


def _read_request(reader: socket.SocketIO) -> Request | None:
    line = reader.readline().decode()
    if not line:
        return None
    method, target, _ = line.split()
    headers = {}
    while (line := reader.readline().decode().strip()) != "":
        name, _, value = line.partition(": ")
        headers[name.lower()] = value
    return Request(method, target, headers, reader.read(int(headers.get("content-length", "0"))))
