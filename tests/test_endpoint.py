"""One request, one page: every fault of the service and of the network, over real sockets."""

from __future__ import annotations

import gzip
import json
import logging
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from faulty import LENDER, ODD, Faulty, Reply, Request, envelope, failure, records, reply

from d22kit import patience, responses
from d22kit.config import Endpoint
from d22kit.endpoint import Cancelled, DeadCursorError, Page, Patience, Service, TooHeavyError
from d22kit.errors import AuthError, ConfigError, EndpointError, ProtocolError, RetriesExhaustedError
from d22kit.patience import Pace, TransientError
from d22kit.sockets import Backend, Watch

QUICK = Patience(connect=2, silence=0.5, answer=1.0, attempts=6, first_contact=2, first=0.001, longest=0.004)
UNTIL = datetime(2026, 1, 1, tzinfo=UTC)


def page(service: Service, **asked: object) -> Page:
    return service.page(**{"since": None, "until": UNTIL, "limit": 10, **asked})  # type: ignore[arg-type]


def ids(got: Page) -> list[int]:
    return [int(row["public_id"], 16) for row in json.loads(got.rows)]


def on_pages(*answers: Reply | None) -> Callable[[Request], Reply | None]:
    """Return a script: the nth page request gets the nth answer; None, and all after them, the usual one."""
    script = iter(answers)
    return lambda request: next(script, None) if request.is_page else None


@contextmanager
def serving(*answers: Reply | None, rows: int = 25, **more: object) -> Iterator[tuple[Faulty, Service]]:
    with (
        Faulty(records(rows), on_pages(*answers), **more) as faulty,  # type: ignore[arg-type]
        Service(faulty.endpoint, patience=QUICK) as service,
    ):
        yield faulty, service
        assert faulty.wrong == []


# The friendly service.


def test_pages_follow_each_other_to_the_null_cursor() -> None:
    with serving() as (faulty, service):
        first = page(service)
        second = page(service, cursor=first.next_cursor)
        third = page(service, cursor=second.next_cursor)
        assert ids(first) + ids(second) + ids(third) == list(range(25))
        assert third.next_cursor is None
        assert service.lender_id == LENDER
        assert (service.stats.requests, service.stats.logins, service.stats.retries) == (4, 1, 0)
        assert all(request.query["until"] == "2026-01-01T00:00:00.000Z" for request in faulty.pages)


def test_a_cursor_comes_back_verbatim_whatever_is_in_it() -> None:
    strange = "%2B%25 +/=&?#\"'<>\\^`{|}~é😀\t" + ODD + "x" * 3000
    with serving(reply(200, envelope([], strange)), reply(200, envelope([], None))) as (faulty, service):
        first = page(service)
        assert first.next_cursor == strange
        page(service, cursor=strange)
        assert faulty.pages[1].query["cursor"] == strange
        faulty.wrong.clear()


def test_a_given_token_and_lender_need_no_login() -> None:
    with serving() as (faulty, _):
        faulty.tokens["given"] = 0
        with Service(Endpoint(root=faulty.root, lender_id=LENDER, token="given"), patience=QUICK) as service:
            assert ids(page(service)) == list(range(10))
        assert [request.target.split("?")[0] for request in faulty.requests] == [
            f"/admin/v3/lenders/{LENDER}/exports/S4/D22"
        ]


def test_totals_come_when_asked_for_and_only_in_their_own_types() -> None:
    total = {"total": 12, "totalExact": False, "totalNote": "capped"}
    odd = {"total": "many", "totalExact": 1, "totalNote": None}
    with serving(reply(200, envelope([], None, **total)), reply(200, envelope([], None, **odd))) as (
        faulty,
        service,
    ):
        got = page(service, include_total=True)
        assert (got.total, got.total_exact, got.total_note) == (12, False, "capped")
        got = page(service)
        assert (got.total, got.total_exact, got.total_note) == (None, None, None)
        assert [request.query.get("includeTotal") for request in faulty.pages] == ["true", None]


def test_now_is_the_servers_and_rounded_up() -> None:
    date = {"Date": "Tue, 15 Nov 1994 08:12:31 GMT"}
    with serving(reply(200, envelope([], None), date)) as (_, service):
        page(service)
        assert service.now() == datetime(1994, 11, 15, 8, 12, 32, tzinfo=UTC)


def test_now_asks_for_a_small_page_when_nothing_was_said_yet_and_never_guesses() -> None:
    with serving(reply(200, envelope([], None), {"Date": "yesterday"})) as (faulty, _):
        faulty.tokens["given"] = 0
        with Service(Endpoint(root=faulty.root, lender_id=LENDER, token="given"), patience=QUICK) as service:
            with pytest.raises(ProtocolError, match="until"):
                service.now()
            assert [request.query["limit"] for request in faulty.pages] == ["1"]


def test_a_gzip_body_is_read() -> None:
    body = gzip.compress(json.dumps(envelope([{"public_id": "0f"}], None)).encode())
    with serving(reply(200, body, {"Content-Encoding": "gzip"})) as (_, service):
        assert ids(page(service)) == [15]


def test_a_lone_surrogate_spoils_one_character_and_no_page() -> None:
    rows = rb'[{"public_id": "1", "a": "\ud800 \\ud800 \ud83d\ude00 \udc00"}]'
    body = b'{"code": 200, "body": {"rows": %s, "pagination": {"nextCursor": null}}}' % rows
    with serving(reply(200, body)) as (_, service):
        assert json.loads(page(service).rows)[0]["a"] == "\ufffd \\ud800 😀 \ufffd"


# Bodies that are no page.

GOOD = json.dumps(envelope([{"public_id": "1"}], None)).encode()


def cut_short(connection: socket.socket) -> None:
    connection.sendall(reply(200, GOOD)[:-20])
    connection.shutdown(socket.SHUT_RDWR)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def reset_inside(connection: socket.socket) -> None:
    connection.sendall(reply(200, GOOD)[:-20])
    time.sleep(0.05)
    reset(connection)


def silent(connection: socket.socket) -> None:
    connection.recv(1)


def drip(connection: socket.socket, whole: bytes = reply(200, GOOD), from_: int = 0) -> None:
    connection.sendall(whole[:from_])
    for byte in whole[from_:]:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def drip_body(connection: socket.socket) -> None:
    whole = reply(200, GOOD)
    drip(connection, whole, whole.index(b"\r\n\r\n") + 4)


@pytest.mark.parametrize(
    "bad",
    [
        reply(200, b""),
        reply(200, b"<html>Sign in</html>"),
        reply(200, GOOD[:-10]),
        reply(200, GOOD + b"x"),
        reply(200, []),
        reply(200, {"success": False, "message": "oops", "requestId": "r"}),
        reply(200, {**json.loads(GOOD), "success": False}),
        reply(200, {**json.loads(GOOD), "code": 500}),
        reply(200, {**json.loads(GOOD), "errors": ["half of it is missing"]}),
        reply(200, {"code": 200, "body": {"rows": []}}),
        reply(200, {"code": 200, "body": {"rows": [], "pagination": {}}}),
        reply(200, {"code": 200, "body": {"pagination": {"nextCursor": None}}}),
        reply(200, {"code": 200, "body": {"rows": {}, "pagination": {"nextCursor": None}}}),
        reply(200, {"code": 200, "body": {"rows": None, "pagination": {"nextCursor": None}}}),
        reply(200, envelope([], "")),
        reply(200, envelope([], 5)),  # type: ignore[arg-type]
        reply(200, GOOD, {"Content-Encoding": "gzip"}),
        reply(200, gzip.compress(GOOD)[:-9], {"Content-Encoding": "gzip"}),
        reply(200, GOOD, {"Content-Encoding": "br"}),
        reply(204, b""),
        reply(200, GOOD, {"Transfer-Encoding": "chunked"}),
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        failure(500),
        failure(502),
        reply(503, b"<html>Service unavailable</html>"),
        cut_short,
        reset,
        reset_inside,
        silent,
        drip,
        drip_body,
    ],
)
def test_a_broken_answer_is_asked_for_again_and_never_taken_for_an_empty_page(bad: Reply) -> None:
    with serving(bad) as (_, service):
        got = page(service)
        assert ids(got) == list(range(10))
        assert got.next_cursor is not None
        assert service.stats.retries == 1


def test_what_stays_broken_ends_with_what_was_wrong() -> None:
    broken = reply(200, {"success": False, "message": "boom", "requestId": "req-7"})
    with serving(*[broken] * 6) as (faulty, service):
        with pytest.raises(
            RetriesExhaustedError, match=r"boom.*req-7.*attempt 6.*What was fetched is kept"
        ) as caught:
            page(service)
        assert (caught.value.request_id, len(faulty.pages)) == ("req-7", 6)


def test_a_body_past_the_limit_is_never_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "LARGEST_BODY", 1 << 20)
    sent = []

    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
            sent.append(65536)

    announced = reply(200, b"", {"Content-Length": str(1 << 40)})
    bomb = reply(200, gzip.compress(b" " * (8 << 20)), {"Content-Encoding": "gzip"})
    with serving(endless, announced, bomb) as (_, service):
        for _ in range(3):
            with pytest.raises(TooHeavyError, match="1 MB"):
                page(service)
    assert sum(sent) < 16 << 20


# Statuses.


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "bad request", EndpointError),
        (401, "lender not found or inactive", AuthError),
        (401, "Lender is inactive", AuthError),
        (403, "lender mismatch", AuthError),
        (404, "unknown dataset", EndpointError),
        (500, "lender has no database", EndpointError),
        (500, "Database not configured for lender", EndpointError),
    ],
)
def test_what_cannot_pass_stops_at_once(status: int, message: str, kind: type[EndpointError]) -> None:
    with serving(failure(status, message)) as (faulty, service):
        with pytest.raises(kind, match=rf"{status}.*{message}.*req-{status}") as caught:
            page(service)
        assert (caught.value.status_code, caught.value.request_id) == (status, f"req-{status}")
        assert not caught.value.retryable
        assert len(faulty.pages) == 1


def test_a_504_is_handed_on_at_once() -> None:
    with serving(reply(504, b"<html>")) as (_, service), pytest.raises(TooHeavyError) as caught:
        page(service)
    assert caught.value.status_code == 504


def test_a_cursor_that_always_fails_is_dead_but_a_first_page_is_not() -> None:
    with serving(*[failure(500, "corrupt cursor")] * 4) as (faulty, service):
        with pytest.raises(DeadCursorError, match="corrupt cursor"):
            page(service, cursor="gone" + ODD)
        assert len(faulty.pages) == 4
        faulty.wrong.clear()
    with serving(*[failure(500)] * 5) as (_, service):
        assert ids(page(service)) == list(range(10))


@pytest.mark.parametrize("status", [400, 410, 422])
def test_a_cursor_that_is_refused_is_dead_at_once(status: int) -> None:
    with serving(failure(status, "invalid cursor")) as (faulty, service):
        with pytest.raises(DeadCursorError, match=rf"{status}.*invalid cursor.*req-{status}"):
            page(service, cursor="gone" + ODD)
        assert len(faulty.pages) == 1
        faulty.wrong.clear()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["exports", "login", "refresh-token"])
def test_no_redirect_is_followed(status: int, where: str) -> None:
    with (
        Faulty(records(5)) as stranger,
        Faulty(records(5), token_lasts=1) as faulty,
    ):
        away = reply(status, b"", {"Location": stranger.root + "/elsewhere"})
        faulty.fault = lambda request: away if where in request.target else None
        with (
            Service(faulty.endpoint, patience=QUICK) as service,
            pytest.raises(ProtocolError, match="redirect"),
        ):
            [page(service) for _ in range(2)]
        assert stranger.requests == []


# Who asks.


def test_a_token_that_expires_is_renewed_once_for_all_workers() -> None:
    together = threading.Barrier(8)
    with serving(token_lasts=8) as (faulty, service):

        def work() -> None:
            for _ in range(2):
                together.wait(10)
                page(service)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert (service.stats.logins, service.stats.refreshes, len(faulty.tokens)) == (1, 1, 2)
        assert service.stats.retries == 0


def test_where_the_refresh_fails_it_logs_in_again() -> None:
    with serving(token_lasts=1) as (faulty, service):
        faulty.refresh_works = False
        assert ids(page(service)) == ids(page(service)) == list(range(10))
        assert (service.stats.logins, service.stats.refreshes) == (2, 1)


def test_a_token_refused_as_soon_as_it_is_given_ends_clearly() -> None:
    with serving(token_lasts=0) as (faulty, service):
        with pytest.raises(AuthError, match=r"401.*token invalid or expired"):
            page(service)
        assert len(faulty.pages) <= 3
        assert (service.stats.logins, service.stats.refreshes) == (3, 0)


def test_a_token_that_dies_before_its_first_page_is_replaced_while_others_work() -> None:
    def stillborn(request: Request) -> bytes | None:
        return failure(401, "token expired") if request.is_page and len(faulty.pages) in (1, 3, 4) else None

    with Faulty(records(50), stillborn) as faulty, Service(faulty.endpoint, patience=QUICK) as service:
        assert ids(page(service)) == ids(page(service)) == list(range(10))
        assert service.stats.logins == 3


def test_refused_credentials_stop_at_once_and_are_not_repeated() -> None:
    with Faulty() as faulty:
        echo = failure(401, "no user ana@acme.example with password wrong-pass")
        faulty.fault = lambda request: echo
        who = Endpoint(root=faulty.root, lender="acme", email="ana@acme.example", password="wrong-pass")
        with (
            Service(who, patience=QUICK) as service,
            pytest.raises(AuthError, match=r"login.*no user") as caught,
        ):
            page(service)
        assert len(faulty.requests) == 1
        assert not any(secret in str(caught.value) for secret in ("ana@", "wrong-pass"))


def test_a_login_outlasts_a_bad_moment() -> None:
    answers = iter([failure(503), reply(200, b"<html>"), reply(504, b"")])
    with Faulty(records(3)) as faulty:
        faulty.fault = lambda request: next(answers, None)
        with Service(faulty.endpoint, patience=QUICK) as service:
            assert ids(page(service)) == [0, 1, 2]
            assert service.stats.retries == 3


def test_a_given_token_that_is_refused_says_so() -> None:
    with Faulty() as faulty:
        who = Endpoint(root=faulty.root, lender_id=LENDER, token="old-token")
        with Service(who, patience=QUICK) as service, pytest.raises(AuthError, match="cannot be renewed"):
            page(service)
        assert len(faulty.requests) == 1


def test_a_token_no_header_can_carry_is_named_but_not_shown() -> None:
    with pytest.raises(AuthError, match="token") as caught:
        Service(Endpoint(root="staging", lender_id=LENDER, token="sec\nret"))
    assert "ret" not in str(caught.value)


def test_no_secret_reaches_a_log_or_an_error(caplog: pytest.LogCaptureFixture) -> None:
    echo = failure(403, "Bearer token-0 is not of ana@acme.example; also refresh-me, s3cret-pass")
    with caplog.at_level(logging.DEBUG), serving(echo) as (_, service), pytest.raises(AuthError) as caught:
        page(service)
    assert "Bearer" not in caplog.text
    for secret in ("token-0", "ana@", "refresh-me", "s3cret"):
        assert secret not in str(caught.value)
        assert secret not in caplog.text


# Waiting.


def in_one_second(form: str) -> dict[str, str]:
    if form == "seconds":
        return {"Retry-After": "1"}
    then = datetime(1999, 5, 1, tzinfo=UTC)
    return {
        name: format_datetime(then + timedelta(seconds=n), usegmt=True)
        for n, name in enumerate(("Date", "Retry-After"))
    }


@pytest.mark.parametrize(("status", "form"), [(429, "seconds"), (429, "date"), (503, "date")])
def test_nobody_sends_before_retry_after_is_over(status: int, form: str) -> None:
    """A date counts from the server's own clock, which may be decades away from this machine's."""
    refused_at = []

    def refuse_one(request: Request) -> bytes | None:
        if request.is_page and not refused_at:
            refused_at.append(time.monotonic())
            return failure(status, headers=in_one_second(form))
        return None

    with Faulty(records(25), refuse_one) as faulty, Service(faulty.endpoint, patience=QUICK) as service:
        with pytest.raises(Cancelled):
            page(service, stop=_already_set())
        first = threading.Thread(target=page, args=(service,))
        first.start()
        while first.is_alive() and not service.stats.throttled_s:
            time.sleep(0.001)
        others = [threading.Thread(target=page, args=(service,)) for _ in range(4)]
        for thread in others:
            thread.start()
        for thread in (first, *others):
            thread.join(20)
        later = [request.at for request in faulty.pages[1:]]
        assert len(later) == 5
        assert min(later) >= refused_at[0] + 1.0


def test_not_even_a_request_that_has_its_turn_is_sent_before() -> None:
    """It may have waited for its connection while another one was refused."""
    watch = Watch()
    pace = Pace(QUICK, watch, None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = Backend(watch, pace.quiet).connect_tcp(*listener.getsockname()[:2], timeout=2)
        service, _ = listener.accept()
        pace.turn()
        refused_at = time.monotonic()
        refusal = TransientError("too many", status_code=429, retry_after=1.0)
        refused = threading.Thread(target=pace.rest, args=(1, refusal))
        refused.start()
        while not pace.throttled_s:
            time.sleep(0.001)
        stream.write(b"GET")
        with service:
            assert service.recv(3) == b"GET"
        assert time.monotonic() >= refused_at + 1.0
        refused.join()
        stream.close()


def test_a_504_that_asks_for_a_wait_gets_it() -> None:
    refused = failure(504, headers={"Retry-After": "1"})
    with serving(refused) as (faulty, service):
        with pytest.raises(TooHeavyError) as caught:
            page(service)
        service.rest(1, caught.value)
        page(service)
        assert faulty.pages[1].at >= faulty.pages[0].at + 1.0


def test_a_dead_cursor_that_asks_for_a_wait_gets_it() -> None:
    passing = [failure(500)] * 3
    with serving(None, *passing, failure(500, headers={"Retry-After": "1"})) as (faulty, service):
        cursor = page(service).next_cursor
        with pytest.raises(DeadCursorError):
            page(service, cursor=cursor)
        page(service)
        assert faulty.pages[5].at >= faulty.pages[4].at + 1.0


def _already_set() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def test_a_service_that_asks_for_too_long_a_wait_is_given_up() -> None:
    refused = failure(503, headers={"Retry-After": "86400"})
    with serving(refused) as (_, service), pytest.raises(RetriesExhaustedError, match="86400 s"):
        page(service)


def test_a_service_gone_for_a_while_is_waited_for_with_a_notice_and_then_given_up() -> None:
    notices: list[str] = []
    with Faulty(records(3), on_pages(*[failure(503, "down for repairs")] * 20)) as faulty:
        service = Service(faulty.endpoint, patience=QUICK, notify=notices.append)
        with service, pytest.raises(RetriesExhaustedError, match="down for repairs"):
            page(service)
        assert len(faulty.pages) == QUICK.attempts
    assert len(notices) == 1
    assert "down for repairs" in notices[0]
    assert "503" in notices[0]


def test_a_service_that_falls_silent_is_told_of_at_its_first_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "NOTICE_EVERY", QUICK.silence)
    notices: list[str] = []
    with Faulty(records(3), on_pages(silent)) as faulty:
        with Service(faulty.endpoint, patience=QUICK, notify=notices.append) as service:
            page(service)
        assert len(faulty.pages) == 2
    assert "Attempt 1 of 6 failed" in notices[0]


def test_a_service_never_reached_is_given_up_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    who = Endpoint(root=f"http://127.0.0.1:{port}", lender_id=LENDER, token="t")
    with Service(who, patience=QUICK) as service:
        with pytest.raises(
            RetriesExhaustedError, match=rf"127.0.0.1:{port}.*ConnectError.*attempt 2.*address"
        ):
            page(service)
        assert service.stats.requests == 2


@pytest.mark.parametrize("held", ["request", "wait"])
def test_a_cancelled_run_ends_what_it_waits_for(held: str) -> None:
    cancelled, reached = threading.Event(), threading.Event()

    def hold(request: Request) -> Reply | None:
        if not request.is_page:
            return None
        reached.set()
        return silent if held == "request" else failure(429, headers={"Retry-After": "600"})

    caught: list[BaseException] = []

    def work(service: Service) -> None:
        try:
            page(service)
        except BaseException as error:
            caught.append(error)

    with Faulty(fault=hold) as faulty, Service(faulty.endpoint, cancelled=cancelled) as service:
        thread = threading.Thread(target=work, args=(service,))
        thread.start()
        assert reached.wait(10)
        cancelled.set()
        thread.join(10)
        assert not thread.is_alive()
    assert [type(error) for error in caught] == [Cancelled]


# TLS and proxies.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, so there is no certificate to serve with")
    path = tmp_path_factory.mktemp("tls") / "loopback.pem"
    name = "-subj /CN=localhost -addext subjectAltName=DNS:localhost"
    kind = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    subprocess.run(
        ["openssl", *kind.split(), *name.split(), "-keyout", path, "-out", f"{path}.crt"],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_an_untrusted_certificate_is_refused_at_once(certificate: Path) -> None:
    with (
        Faulty(records(3), tls=tls(certificate)) as faulty,
        Service(faulty.endpoint, patience=QUICK) as service,
    ):
        with pytest.raises(EndpointError, match="trust store") as caught:
            page(service)
        assert not caught.value.retryable
        assert service.stats.requests == 1
        assert faulty.requests == []


@pytest.mark.parametrize("proxied", [False, True])
def test_the_deadline_holds_over_tls_and_through_a_proxy(
    certificate: Path, proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with (
        Faulty(records(25), on_pages(drip), tls=tls(certificate)) as faulty,
        tunnel(faulty) as proxy,
    ):
        monkeypatch.setenv("NO_PROXY", "" if proxied else "localhost")
        monkeypatch.setenv("HTTPS_PROXY", proxy.root)
        with Service(faulty.endpoint, patience=QUICK) as service:
            assert ids(page(service)) == list(range(10))
            assert service.stats.retries == 1
        assert bool(proxy.tunnels) == proxied


def test_a_proxy_that_cannot_be_used_is_a_matter_of_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "ftp://user:pass@proxy.example")
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as caught:
        Service(Endpoint(root="staging", lender_id=LENDER, token="t"))
    assert "pass" not in str(caught.value)


class Tunnel:
    """A proxy that knows CONNECT, and only the way to one server."""

    def __init__(self, to: Faulty) -> None:
        self.to, self.tunnels = to, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.root = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def run(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            near.recv(65536)
            self.tunnels += 1
            near.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            far = socket.create_connection(("127.0.0.1", self.to.port))
            for pair in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=pair, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with source, sink:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            return


@contextmanager
def tunnel(to: Faulty) -> Iterator[Tunnel]:
    proxy = Tunnel(to)
    threading.Thread(target=proxy.run, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.close()
