"""What the synthetic lender's providers do: their words, codes, texts, delays and how often.

Status words and numbers are those of SMTP (RFC 5321, RFC 3463), Twilio and the WhatsApp Cloud API; SIP
numbers for calls (RFC 3261). Every address, host, number and id in a text is made up, from ranges
reserved for documentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["BLOCKLISTED", "CANCELLED", "OUTAGE", "PLATFORMS", "Path", "Platform", "Step"]

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


@dataclass(frozen=True, slots=True)
class Step:
    """One recorded change: the provider's word, code and text, `after` a median of seconds."""

    word: str
    code: str | None = None
    text: str | None = None
    after: float = 4.0
    spread: float = 0.8


@dataclass(frozen=True, slots=True)
class Path:
    """A whole life of a message: `weight` in a hundred take these steps."""

    weight: float
    steps: tuple[Step, ...]

    @property
    def trouble(self) -> bool:
        """Whether it ends badly."""
        return not {"BOUNCED", "UNDELIVERED", "FAILED"}.isdisjoint(self.words)

    @property
    def delivered_at(self) -> int:
        """The step that delivers it, or -1."""
        return self.words.index("DELIVERED") if "DELIVERED" in self.words else -1

    @property
    def words(self) -> list[str]:
        """The words of its steps, in upper case."""
        return [step.word.upper() for step in self.steps]


@dataclass(frozen=True, slots=True)
class Platform:
    """A channel: its weight at the start, growth over a year, hours of a local day, purposes, lives."""

    name: str
    weight: float
    growth: float
    hours: tuple[int, ...]
    purposes: dict[str, float]
    answers: float
    answer_after: float
    agent_share: float
    operation: str
    paths: tuple[Path, ...]


def _paths(*paths: tuple[Any, ...]) -> tuple[Path, ...]:
    """Lay out `(weight, step, step, ...)`, those that end well first."""
    return tuple(sorted((Path(path[0], path[1:]) for path in paths), key=lambda path: path.trouble))


_SENT = Step("SENT", after=1.2, spread=0.5)
_SCHEDULED = Step("SENT", after=11 * HOUR, spread=0.4)
_GREY = Step("DEFERRED", "451", "451 4.7.1 Greylisting in action, please come back later <{email}>", 3)
_BUSY = Step("DEFERRED", "421", "421 4.3.2 {host} Service not available, closing transmission channel", 5)
_FULL = Step(
    "DEFERRED", "452", "452 4.2.2 The account that you tried to reach is over quota. {email} {id} - gsmtp"
)
_RATE = Step(
    "DEFERRED", "450", "450-4.2.1 The user {email} is receiving mail at a rate that prevents delivery. {id}"
)
_ARRIVED = Step("DELIVERED", "250", after=9, spread=1.1)
_OPENED = Step("OPENED", "250", after=2.6 * HOUR, spread=1.5)


def _at_last(median: float) -> Step:
    return Step("DELIVERED", "250", after=median)


def _bounce(code: str, text: str, after: float = 6.0, spread: float = 1.2) -> Step:
    return Step("BOUNCED", code, text, after, spread)


_EMAIL = _paths(
    (56.0, _SENT, _ARRIVED),
    (24.0, _SENT, _ARRIVED, _OPENED),
    (7.0, _SCHEDULED, _ARRIVED),
    (2.0, _SCHEDULED, _ARRIVED, _OPENED),
    (1.6, _GREY, _at_last(14 * MINUTE)),
    (1.1, _BUSY, _at_last(1.2 * HOUR)),
    (0.6, _RATE, _at_last(2 * HOUR)),
    (0.8, _FULL, _at_last(11 * HOUR)),
    (1.1, Step("SUPPRESSED", None, "Recipient {email} is on the account suppression list", 0.4)),
    (
        0.75,
        _SENT,
        _bounce("550", "550 5.1.1 <{email}>: Recipient address rejected: User unknown in virtual table"),
    ),
    (
        0.55,
        _SENT,
        _bounce("550", "550-5.1.1 The account that you tried to reach does not exist. {id} - gsmtp"),
    ),
    (
        0.25,
        _SENT,
        _bounce("5.1.10", "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient {email} not found"),
    ),
    (0.2, _SENT, _bounce("550", "550 No such user here: {user} [{ip}]")),
    (0.3, _SENT, _bounce("5.4.4", "Name service error for name={domain} type=MX: Host not found", 30)),
    (
        0.3,
        _SENT,
        _bounce("550", "550 5.2.1 The account {email} that you tried to reach is disabled. {id} - gsmtp"),
    ),
    (
        0.3,
        _FULL,
        _bounce("552", "552 5.2.2 <{email}>: mailbox over quota, message {id} returned", 2 * DAY, 0.3),
    ),
    (0.3, _BUSY, _bounce("4.4.7", "554 4.4.7 Message expired <421 4.4.2 {host} timed out>", 2 * DAY, 0.05)),
    (
        0.12,
        _SENT,
        _bounce("550", "550 5.7.26 Unauthenticated email from {domain} fails its DMARC policy. {id}"),
    ),
    (0.15, _SENT, _bounce("554", "554 5.7.1 Message {id} refused: content classified as spam, see {url}")),
    (0.08, _SENT, _bounce("550", "550 5.7.1 Client host [{ip}] blocked using zen.spamhaus.org; {url}")),
    (0.05, _SENT, _bounce("552", "552 5.3.4 Message size 31457280 exceeds fixed limit of {host}")),
    (0.15, Step("FAILED", None, "Rendering failed: variable 'due_date' is missing for {email}", 0.8)),
)
_SMS = _paths(
    (71.0, _SENT, Step("DELIVERED", after=7, spread=1.1)),
    (7.5, _SCHEDULED, Step("DELIVERED", after=7, spread=1.1)),
    (5.0, _SENT, Step("DELIVERED", after=3.5 * HOUR, spread=1.3)),
    (9.5, _SENT),
    (0.7, Step("CANCELED", after=0.5)),
    (1.6, _SENT, Step("UNDELIVERED", "30003", "Unreachable destination handset: {phone}", 26 * HOUR, 0.5)),
    (0.4, _SENT, Step("UNDELIVERED", "30036", "Validity period expired for {phone}", 3 * DAY, 0.0)),
    (1.2, _SENT, Step("UNDELIVERED", "30005", "Unknown destination handset: {phone}", 12)),
    (0.5, _SENT, Step("UNDELIVERED", "30006", "Landline or unreachable carrier for {phone}", 8)),
    (0.7, _SENT, Step("UNDELIVERED", "30008", "Unknown error (message {id})", 40, 1.4)),
    (0.2, _SENT, Step("UNDELIVERED", "30007", "Message filtered by the carrier", 6)),
    (0.5, Step("FAILED", "21610", "Attempt to send to unsubscribed recipient {phone}", 0.7)),
    (0.3, Step("FAILED", "30001", "Queue overflow", 1.5)),
)
_READ = Step("read", after=22 * MINUTE, spread=1.8)
_WA_SENT = Step("sent", after=0.9, spread=0.4)
_WA_ARRIVED = Step("delivered", after=3.5, spread=1.0)
_WHATSAPP = _paths(
    (24.0, _WA_SENT, _WA_ARRIVED),
    (53.0, _WA_SENT, _WA_ARRIVED, _READ),
    (12.0, _WA_SENT, Step("delivered", after=2.8 * HOUR, spread=1.2), _READ),
    (6.0, _WA_SENT),
    (0.6, Step("failed", "131050", "Recipient {phone} has chosen to stop receiving marketing messages", 1.1)),
    (2.2, Step("failed", "131026", "Message undeliverable to {phone}", 2.2)),
    (0.9, Step("failed", "131049", "Not delivered, to maintain healthy ecosystem engagement", 1.6)),
    (0.5, Step("failed", "131047", "More than 24 hours have passed since {phone} last replied", 1.1)),
    (0.3, Step("failed", "131048", "Spam rate limit hit, fbtrace_id {id}", 1.2)),
    (0.3, Step("failed", "132001", "Template name does not exist in the translation", 0.8)),
    (0.2, Step("failed", "131000", "Something went wrong, fbtrace_id {id}", 3.0)),
)
_DIALLED = Step("IN_PROGRESS", after=75, spread=0.9)
_VOICE = _paths(
    (58.0, _DIALLED, Step("DELIVERED", "200", after=48, spread=0.6)),
    (21.0, _DIALLED, Step("UNDELIVERED", "480", "480 Temporarily Unavailable", 31, 0.2)),
    (9.0, _DIALLED, Step("UNDELIVERED", "486", "486 Busy Here", 4)),
    (5.0, _DIALLED, Step("UNDELIVERED", "408", "408 Request Timeout: no answer from {phone}", 60, 0.1)),
    (3.0, _DIALLED, Step("UNDELIVERED", "603", "603 Decline", 9)),
    (2.5, _DIALLED, Step("FAILED", "404", "404 Not Found: {phone}", 3)),
    (0.6, _DIALLED, Step("FAILED", "503", "503 Service Unavailable via {host}", 5)),
)

OUTAGE = _paths(
    (52, Step("FAILED", "30410", "Provider timeout for {phone}", 90, 0.7)),
    (30, Step("FAILED", "30001", "Queue overflow", 20, 1.0)),
    (18, Step("FAILED", "30500", "Provider internal error, message {id}", 45, 0.9)),
)
BLOCKLISTED = _paths(
    (
        24,
        _SENT,
        _bounce(
            "550", "550 5.7.1 Messages from [{ip}] weren't sent: its network is on our block list (S3140)"
        ),
    ),
    (
        18,
        _SENT,
        _bounce("5.7.606", "550 5.7.606 Access denied, banned sending IP [{ip}]. Visit {url} to be delisted"),
    ),
    (34, _SENT, _bounce("554", "554 5.7.1 Client host [{ip}] blocked using zen.spamhaus.org; {url}")),
    (14, _SENT, _bounce("5.7.1", "550-5.7.1 [{ip}] The sending IP has a very low reputation. {id} - gsmtp")),
    (
        10,
        _SENT,
        _bounce("553", "553 5.7.2 [TSS09] All messages from {ip} will be permanently deferred. See {url}"),
    ),
)
CANCELLED = _paths((100, Step("CANCELED", None, "Campaign cancelled before sending", 40 * MINUTE)))

_OFFICE = (0, 0, 0, 0, 0, 0, 1, 4, 18, 30, 34, 28, 20, 14, 18, 20, 15, 9, 4, 2, 1, 1, 0, 0)
_LONG = (0, 0, 0, 0, 0, 0, 0, 2, 12, 24, 26, 22, 16, 14, 17, 20, 22, 20, 16, 11, 5, 1, 0, 0)
_EVENING = (0, 0, 0, 0, 0, 0, 0, 1, 9, 18, 22, 20, 16, 13, 15, 17, 20, 23, 24, 20, 11, 3, 1, 0)
_CALLS = (0, 0, 0, 0, 0, 0, 0, 0, 6, 22, 28, 24, 9, 12, 22, 26, 22, 12, 4, 1, 0, 0, 0, 0)

PLATFORMS: tuple[Platform, ...] = (
    Platform(
        "EMAIL", 34, 1.7, _OFFICE,
        {"REMINDER": 46, "OVERDUE_NOTICE": 22, "STATEMENT": 14, "SETTLEMENT_OFFER": 10, "RECEIPT": 8},
        answers=0.03, answer_after=5 * HOUR, agent_share=0.06, operation="SEND", paths=_EMAIL,
    ),
    Platform(
        "SMS", 36, 1.5, _LONG,
        {"REMINDER": 58, "PAYMENT_LINK": 22, "OVERDUE_NOTICE": 14, "RECEIPT": 6},
        answers=0.045, answer_after=35 * MINUTE, agent_share=0.03, operation="SEND", paths=_SMS,
    ),
    Platform(
        "WHATSAPP", 20, 3.4, _EVENING,
        {"REMINDER": 38, "PAYMENT_LINK": 26, "SETTLEMENT_OFFER": 16, "PROMISE_TO_PAY": 20},
        answers=0.30, answer_after=12 * MINUTE, agent_share=0.34, operation="SEND", paths=_WHATSAPP,
    ),
    Platform(
        "VOICE", 10, 1.2, _CALLS,
        {"REMINDER": 52, "PROMISE_TO_PAY": 30, "SETTLEMENT_OFFER": 18},
        answers=0.06, answer_after=50 * MINUTE, agent_share=0.55, operation="CALL", paths=_VOICE,
    ),
)  # fmt: skip
