"""The service's contract over HTTP: login, tokens, pages, totals and errors, on a loopback port."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from email.utils import format_datetime
from hashlib import blake2b
from json import JSONDecodeError, dumps
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from d22kit.errors import InputError
from d22kit.simulator.index import US, CorruptCursorError, Index, position
from d22kit.times import instant, iso

__all__ = ["EMAIL", "LENDER", "LENDER_ID", "PASSWORD", "Hook", "Server", "Service", "refuse"]

LENDER = "oasis"
LENDER_ID = "6f1c1d22-0d22-4a57-9c1e-d22d22d22d22"
EMAIL = "analyst@oasis.example"
PASSWORD = "not-a-secret"  # noqa: S105 - the simulator's only login, printed on purpose
TOTAL_CAP = 100_000
TOTAL_TIMEOUT = 10 * TOTAL_CAP

Hook = Callable[[int, Request], Response | None]
"""Sees every request with its number, from 1, and may answer it in place of the service."""


def refuse(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The service's error envelope."""
    request_id = "req-" + blake2b(message.encode(), digest_size=6).hexdigest()
    body = {"success": False, "message": message, "requestId": request_id}
    return JSONResponse(body, status_code=status, headers=headers)


class Service:
    """The contract, over rows that the owner may exchange at any time.

    Parameters
    ----------
    index
        The rows as they are served; assign another one and the next page comes from it.
    now
        The service's clock, which the `Date` header tells.
    latency
        Seconds that a page waits before it is answered.
    token_lifetime
        Pages that a token is good for; None is for ever.
    proxy_limit
        Records a query may still have before it; beyond, the proxy answers 504. None is no limit.
    hook
        Answers in place of the service, for tests of faults.
    """

    def __init__(
        self,
        index: Index,
        now: datetime,
        *,
        latency: float = 0.0,
        token_lifetime: int | None = None,
        proxy_limit: int | None = None,
        hook: Hook | None = None,
    ) -> None:
        self.index, self.now, self.hook = index, now, hook
        self.latency, self.token_lifetime, self.proxy_limit = latency, token_lifetime, proxy_limit
        self.requests: Counter[str] = Counter()
        self._tokens: dict[str, int] = {}
        auth = "/admin/auth/{lender}"
        self.app = Starlette(
            routes=[
                Route(f"{auth}/login", self._answer(self._login), methods=["POST"]),
                Route(f"{auth}/refresh-token", self._answer(self._refresh), methods=["POST"]),
                Route("/admin/v3/lenders/{lender_id}/exports/{section}/{dataset}", self._answer(self._page)),
            ],
            exception_handlers={HTTPException: self._unknown},
        )

    def _answer(self, act: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            self.requests["all"] += 1
            number, now = self.requests["all"], self.now
            response: Response = (self.hook and self.hook(number, request)) or await act(request)
            response.headers["date"] = format_datetime(now, usegmt=True)
            if response.status_code >= 400:
                self.requests[str(response.status_code)] += 1
            return response

        return answer

    async def _unknown(self, request: Request, error: Exception) -> Response:
        return refuse(getattr(error, "status_code", 500), f"Cannot {request.method} {request.url.path}")

    async def _login(self, request: Request) -> Response:
        self.requests["login"] += 1
        given = await _body(request)
        if request.path_params["lender"] != LENDER:
            return refuse(401, "Lender not found or inactive")
        if (given.get("email"), given.get("password")) != (EMAIL, PASSWORD):
            return refuse(401, "Invalid email or password")
        return JSONResponse(
            {"token": self._token(), "refreshToken": "refresh-0", "lenderPublicId": LENDER_ID}
        )

    async def _refresh(self, request: Request) -> Response:
        self.requests["refresh"] += 1
        given = await _body(request)
        if request.path_params["lender"] != LENDER or given.get("refreshToken") != "refresh-0":
            return refuse(401, "Invalid refresh token")
        return JSONResponse({"token": self._token()})

    def _token(self) -> str:
        token = f"token-{len(self._tokens)}"
        self._tokens[token] = 0
        return token

    async def _page(self, request: Request) -> Response:
        self.requests["page"] += 1
        if self.latency:
            await asyncio.sleep(self.latency)
        refused = self._unauthorised(request) or _elsewhere(request)
        return refused or self._rows(request)

    def _unauthorised(self, request: Request) -> Response | None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            return refuse(401, "Missing or malformed authorization header")
        used = self._tokens.get(token)
        if used is None or (self.token_lifetime is not None and used >= self.token_lifetime):
            return refuse(401, "Invalid or expired token")
        self._tokens[token] = used + 1
        return None

    def _rows(self, request: Request) -> Response:
        asked, index = request.query_params, self.index
        limit, reverse = _limit(asked.get("limit")), asked.get("sort") == "desc"
        try:
            window = _window(index, asked)
            first, last = _rest(index, window, asked.get("cursor"), reverse)
        except InputError as error:
            return refuse(500, f"Cast to date failed: {error}")
        except CorruptCursorError:
            return refuse(500, "Unexpected token in cursor")
        if self.proxy_limit is not None and last - first > self.proxy_limit:
            return refuse(504, "The query exceeded the time limit of the proxy")
        page = (max(first, last - limit), last) if reverse else (first, min(first + limit, last))
        boundary = page[0] if reverse else page[1] - 1
        more = page != (first, last)
        pagination: dict[str, Any] = {"limit": limit, "nextCursor": index.cursor(boundary) if more else None}
        if asked.get("includeTotal") == "true":
            pagination |= _total(index, window, whole="since" not in asked or "until" not in asked)
        return self._envelope(index.rows(*page, reverse=reverse), pagination)

    def _envelope(self, rows: bytes, pagination: dict[str, Any]) -> Response:
        meta = {"section": "S4", "dataset": "D22", "lenderPublicId": LENDER_ID, "generatedAt": iso(self.now)}
        head = b'{"code":200,"message":"Dataset fetched successfully","body":{"rows":['
        tail = f'],"pagination":{dumps(pagination)},"meta":{dumps(meta)}}},"errors":[]}}'
        return Response(head + rows + tail.encode(), media_type="application/json")


async def _body(request: Request) -> dict[str, Any]:
    try:
        given = await request.json()
    except (JSONDecodeError, UnicodeDecodeError):
        given = None
    return given if isinstance(given, dict) else {}


def _elsewhere(request: Request) -> Response | None:
    where = request.path_params
    if where["lender_id"] != LENDER_ID:
        return refuse(403, "You do not have access to this lender")
    if (where["section"], where["dataset"]) != ("S4", "D22"):
        return refuse(404, f"Dataset {where['section']}/{where['dataset']} is not available")
    return None


def _limit(text: str | None) -> int:
    try:
        return min(max(int(text or 500), 1), 1000)
    except ValueError:
        return 500


def _window(index: Index, asked: QueryParams) -> tuple[int, int]:
    """Which records lie in `[since, until)`."""
    first = _bound(index, asked.get("since"), 0)
    return first, max(first, _bound(index, asked.get("until"), len(index.times)))


def _bound(index: Index, text: str | None, default: int) -> int:
    moment = instant(text)
    return default if moment is None else index.find(round(moment.timestamp() * US))


def _rest(index: Index, window: tuple[int, int], cursor: str | None, reverse: bool) -> tuple[int, int]:
    """Which of them lie beyond the cursor."""
    first, last = window
    if not cursor:
        return first, last
    at = index.find(*position(cursor), after=not reverse)
    return (first, max(first, min(last, at))) if reverse else (min(max(first, at), last), last)


def _total(index: Index, window: tuple[int, int], *, whole: bool) -> dict[str, Any]:
    """Count the rows: only of a window, exactly up to a cap, and not at all when there are too many."""
    rows = int(index.own[window[1]] - index.own[window[0]])
    if whole:
        return {"total": None, "totalExact": False, "totalNote": "window_required"}
    if rows > TOTAL_TIMEOUT:
        return {"total": None, "totalExact": False, "totalNote": "timeout"}
    if rows > TOTAL_CAP:
        return {"total": TOTAL_CAP, "totalExact": False, "totalNote": "capped"}
    return {"total": rows, "totalExact": True}


class Server:
    """Serves an application from a thread of its own, on a loopback port."""

    def __init__(self, app: Starlette, port: int = 0) -> None:
        self._socket = socket.create_server(("127.0.0.1", port))
        # connections inherit it; with Nagle's delay a small page takes 40 ms
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            date_header=False,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()
        self._socket.close()
