"""States and causes: what the standards and vendors document, and what must not matter."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import d22kit
from d22kit.errors import InputError
from d22kit.questions._rules import OPERATOR, READY, categories, normal, phrases, rules
from d22kit.questions.classify import CATEGORIES, KEYS, RESULT, STATES, classify, classify_distinct

CASES = [
    tuple(line.split("\t"))
    for line in (Path(__file__).parent / "bounce_cases.tsv").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]


def judged(
    *cases: tuple[str | None, str | None, str | None, str | None],
) -> list[tuple[str, str | None, str | None]]:
    """Classify cases of platform, status, code and text."""
    frame = pl.DataFrame(cases, dict.fromkeys(KEYS, pl.String), orient="row")
    return classify_distinct(frame).select(RESULT).rows()


def bounced(
    text: str | None, code: str | None = None, platform: str = "EMAIL"
) -> tuple[str, str | None, str | None]:
    return judged((platform, "BOUNCED", code, text))[0]


def wrong(cases: list[tuple[tuple[str | None, ...], tuple[str, ...]]]) -> list[tuple[object, ...]]:
    """Return the cases that are not judged as expected: (case, expected category and permanence, told)."""
    told = judged(*(case for case, _ in cases))
    return [
        (case, expected, row)
        for (case, expected), row in zip(cases, told, strict=True)
        if row[1 : 1 + len(expected)] != expected
    ]


def test_documented_texts() -> None:
    assert (
        wrong([(("EMAIL", "BOUNCED", c or None, t or None), (cat, perm)) for cat, perm, c, t in CASES]) == []
    )


def test_a_text_alone_is_hard_only_with_evidence() -> None:
    others = [text for _, permanence, _, text in CASES if text and permanence != "hard"]
    told = judged(*(("EMAIL", "BOUNCED", None, text) for text in others))
    assert [text for text, row in zip(others, told, strict=True) if row[2] == "hard"] == []


# ------------------------------------------------------------------------------------------------ codes alone

SMTP = {
    "invalid_recipient hard": "5.1.1 5.1.3 5.1.4 5.1.6 5.1.10 5.7.17",
    "invalid_recipient soft": "550 551 553 5.1.0 4.1.1",
    "inactive_recipient hard": "5.2.1 5.7.13 525",
    "inactive_recipient soft": "4.2.1",
    "domain_not_found hard": "5.1.2 5.7.18 556",
    "domain_not_found soft": "4.1.2 5.4.4 521",
    "mailbox_full soft": "5.2.2 4.2.2 552 522",
    "message_too_large block": "5.2.3 5.3.4 5.7.16",
    "temporary_failure soft": "421 450 451 452 454 4.0.0 4.3.0 5.3.0 4.3.1 5.3.2 4.3.2 4.4.1 5.4.1 4.4.2 5.4.3 4.4.4 "
    "4.4.5 5.4.6",
    "expired soft": "4.4.7 5.4.7",
    "rate_limited soft": "5.5.3 4.5.3 4.7.28 4.7.650 5.2.121 5.2.122",
    "sender_error block": "500 501 502 503 504 555 530 534 535 538 523 524 "
    "5.5.0 5.5.1 5.5.2 5.5.4 5.7.4 5.7.8 5.7.15 5.3.5",
    "sender_blocked block": "571 5.1.7 5.1.8 5.7.0 5.7.1 5.7.2 5.7.9 5.7.28 "
    "5.7.511 5.7.606 5.7.649 5.7.705 5.7.708 5.7.750",
    "authentication_failed block": "5.7.20 5.7.23 5.7.24 5.7.25 5.7.26 5.7.27 5.7.29 5.7.509 5.7.515",
    "authentication_failed soft": "4.7.24 4.7.26",
    "content_rejected block": "5.6.0 5.6.1 5.6.7",
    "unknown soft": "554 5.0.0 599 5.7.19",
}


def test_a_code_alone() -> None:
    meant = [(code, tuple(means.split())) for means, codes in SMTP.items() for code in codes.split()]
    assert wrong([(("EMAIL", "BOUNCED", code, None), means) for code, means in meant]) == []
    assert wrong([(("EMAIL", "BOUNCED", None, f"({code})"), means) for code, means in meant]) == []


NUMBERS = {
    (
        "SMS",
        "invalid_recipient",
    ): "30005 30006 21211 21614 21635 ER-02 ER-03 ER-04 ER-05 EC_UNKNOWN_SUBSCRIBER "
    "EC_INVALID_DESTINATION_ADDRESS EC_DEST_ADDRESS_UNABLE_TO_RECEIVE_SMS 1 "
    "REJECTED_DESTINATION REJECTED_PREFIX_MISSING EC_DESTINATION_NOT_SMS_PROVISIONED EC_UNKNOWN_USER ESME_RINVDSTADR "
    "351",
    ("SMS", "inactive_recipient"): "EC_CALL_BARRED EC_DEST_ADDRESS_SUSPENDED EC_RECIPIENT_DEACTIVATED 569",
    (
        "SMS",
        "opted_out",
    ): "21610 EC_SC_BLOCKED_BY_END_USER EC_DEACTIVATED_LIST REJECTED_DND EC_BLOCKED_USER 573",
    ("SMS", "mailbox_full"): "EC_SM_DF_MEMORYCAPACITYEXCEEDED EC_MESSAGE_WAITING_LIST_FULL",
    (
        "SMS",
        "rate_limited",
    ): "30001 30022 30023 20429 21611 14107 EC_DESTINATION_FLOODING EC_DAILY_LIMIT_REACHED EC_QUOTA_REACHED "
    "EC_FREQUENCY_CAPPING EC_SPAM_RATE EC_10DLC_LIMIT_REACHED ESME_RTHROTTLED ESME_RMSGQFUL 541",
    (
        "SMS",
        "temporary_failure",
    ): "30003 30410 30500 EC_ABSENT_SUBSCRIBER EC_ABSENT_SUBSCRIBER_SM EC_SUBSCRIBER_BUSY_FOR_MT_SMS "
    "EC_SYSTEM_FAILURE EC_NNR_MTPFAILURE EC_NC_TIMEOUT EC_PA_MAINTENANCEACTIVITY "
    "EC_ROAMING_NOT_ALLOWED EC_USER_OUT_OF_CREDIT EC_DEST_OVERLOADED ESME_RSYSERR 1155",
    ("SMS", "expired"): "30036 EXPIRED_EXPIRED EC_MESSAGE_EXPIRED EC_VALIDITY_EXPIRED EC_VP_EXPIRED",
    (
        "SMS",
        "sender_blocked",
    ): "30004 30032 30034 30450 EC_BLACKLISTED_SENDERADDRESS EC_SOURCE_ADDRESS_IS_BLOCKED EC_TF_NUMBER_NOT_VERIFIED "
    "EC_SC_BLOCKED EC_CUG_REJECT EC_ENTITY_BLACKLISTED EC_SENDER_BLOCKED_BY_DLT",
    (
        "SMS",
        "content_rejected",
    ): "30007 30019 ER-06 ER-07 ER-09 EC_CONTENT_BLOCKED_BY_OPERATOR EC_REJECTED_SPAM_BY_OPERATOR EC_DUPLICATE_MESSAGE "
    "EC_TEMPLATE_BLOCKED_BY_DLT EC_BLOCKED_CONTENT",
    ("SMS", "message_too_large"): "21617 EC_MSG_TEXT_TOO_LONG",
    ("SMS", "sender_error"): "30002 30009 30010 21408 21606 21612 20003 ER-01 ER-08 EC_ACCOUNT_ACCESS_DENIED "
    "EC_INVALID_SOURCE_ADDRESS EC_ACCOUNT_NOT_PROVISIONED_FOR_CHANNEL REJECTED_DESTINATION_NOT_REGISTERED MISSING_TO "
    "REJECTED_NOT_ENOUGH_CREDITS EC_TEMPLATE_NOT_FOUND EC_HEADER_INACTIVE EC_NO_SESSION ESME_RINVSRCADR",
    ("SMS", "unknown"): "30008 EC_UNKNOWN_ERROR 99999 UNDELIVERABLE_REJECTED_OPERATOR ESME_RSUBMITFAIL",
    ("WHATSAPP", "invalid_recipient"): "131026 63003 63024",
    ("WHATSAPP", "opted_out"): "131050 63014",
    ("WHATSAPP", "rate_limited"): "130429 131048 131049 131056 80007 4 63018 63038 63049",
    ("WHATSAPP", "temporary_failure"): "131000 131016 131057 1 2 130472 63012 63032",
    ("WHATSAPP", "sender_blocked"): "131031 368 130497 132015 132016 63051",
    ("WHATSAPP", "content_rejected"): "131051 131052 131053 132007 63005 63013 63021",
    ("WHATSAPP", "message_too_large"): "132005",
    (
        "WHATSAPP",
        "sender_error",
    ): "131047 131021 131005 131008 131009 131042 131045 132000 132001 132012 133010 0 3 10 100 190 33 "
    "63001 63007 63016 63020 63027 63028 63029 63030",
    ("WHATSAPP", "unknown"): "135000",
}


def test_a_number_of_two_meanings_lets_its_text_decide() -> None:
    cases = [("SMS", "FAILED", "30019", text) for text in (None, "Content size exceeds carrier limit")]
    cases += [("WHATSAPP", "failed", "131053", text) for text in ("Media upload error", "Media file too big")]
    assert [row[1] for row in judged(*cases)] == ["content_rejected", "message_too_large"] * 2


def test_numbers_of_providers() -> None:
    meant = [
        (kind, code, (category,)) for (kind, category), codes in NUMBERS.items() for code in codes.split()
    ]
    assert wrong([((kind, "FAILED", code, None), category) for kind, code, category in meant]) == []
    spelt = [
        (kind, f"{code}.0" if code.isdigit() else code.lower(), category) for kind, code, category in meant
    ]
    assert wrong([((kind, "FAILED", code, None), category) for kind, code, category in spelt]) == []
    told = [
        ((kind, "FAILED", None, f"(#{code}) Something"), means)
        for kind, code, means in meant
        if len(code) > 3
    ]
    assert wrong(told) == []


def test_a_number_is_read_by_its_platform() -> None:
    assert judged(("EMAIL", "FAILED", "131026", None))[0][1] == "unknown"
    assert judged(("PIGEON", "FAILED", "30005", None))[0][1] == "unknown"
    assert judged((None, "FAILED", "550", None))[0][1] == "unknown"
    assert judged(("SMS", "FAILED", "550", None))[0][1] == "unknown"


MESSAGING = [
    ("SMS", "1", "Absent Subscriber - Temporary", "temporary_failure", "soft"),
    ("SMS", "6", "Anti-Spam Rejection", "content_rejected", "block"),
    ("SMS", "3", "Absent Subscriber - Permanent", "invalid_recipient", "hard"),
    ("SMS", "4", "Call Barred by User", "opted_out", "hard"),
    ("SMS", None, "Blocked by operator spam filter", "content_rejected", "block"),
    ("SMS", None, "Account suspended", "sender_error", "block"),
    ("SMS", None, "Roaming not allowed", "temporary_failure", "soft"),
    ("SMS", None, "Your account has been closed", "sender_error", "block"),
    ("WHATSAPP", None, "Account locked", "sender_blocked", "block"),
    ("WHATSAPP", None, "User blocked this business", "opted_out", "hard"),
    ("WHATSAPP", None, "Service unavailable", "temporary_failure", "soft"),
    ("EMAIL", None, "Account suspended", "inactive_recipient", "hard"),
    ("EMAIL", "554", "554 5.7.1 Sender account suspended. Contact your provider", "sender_error", "block"),
    ("EMAIL", "550", "550 Your domain is suspended, mail is refused", "sender_blocked", "block"),
]


def test_whose_account_and_number_a_text_speaks_of() -> None:
    told = [((kind, "FAILED", code, text), means) for kind, code, text, *means in MESSAGING]
    assert wrong([(case, tuple(means)) for case, means in told]) == []


def test_service_unavailable_says_nothing_once_a_code_is_permanent() -> None:
    assert bounced("554 5.0.0 Service unavailable", "554")[1:] == ("unknown", "soft")
    assert bounced("421 Service unavailable", "421")[1:] == ("temporary_failure", "soft")
    assert bounced("Service unavailable")[1:] == ("temporary_failure", "soft")
    assert bounced("554 5.1.1 Service unavailable", "554")[1:] == ("invalid_recipient", "hard")


def test_texts_that_look_like_more_than_they_say() -> None:
    qmail = "Sorry. Although I'm listed as a best-preference MX or A for that host, it isn't in my control/locals file, so I don't treat it as local. (#5.4.6)"  # noqa: E501 - qmail's own
    assert bounced(qmail)[1:] == ("temporary_failure", "soft")
    assert bounced("Invalid domain name")[1:] == ("domain_not_found", "soft")
    assert bounced("550 5.1.2 Invalid domain name")[1:] == ("domain_not_found", "hard")
    assert bounced("550 Your domain does not exist")[1:] == ("sender_blocked", "block")
    assert bounced("450 4.1.1 user unknown for the moment, try later")[1:] == ("temporary_failure", "soft")


def test_accents_do_not_matter() -> None:
    texts = [text for _, _, _, text in CASES if not text.isascii()]
    bare = [re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFKD", text)) for text in texts]
    cases = [[("EMAIL", "BOUNCED", None, text) for text in spelt] for spelt in (texts, bare)]
    assert judged(*cases[0]) == judged(*cases[1])


LISTS = [
    "Blocked using Spamhaus", "listed in zen.spamhaus.org", "see http://www.barracudacentral.org/rbl",
    "bl.spamcop.net said no", "dnsbl.sorbs.net", "Abusix Mail Intelligence",
    "https://ipcheck.proofpoint.com/?ip=192.0.2.9", "block list (S3150)", "in an RBL", "DNSBL hit",
    "csi.cloudmark.com/en/reset", "psbl.surriel.com", "dnsbl-1.uceprotect.net", "ivmSIP at invaluement",
    "SenderScore too low", "Trend Micro RBL+", "truncate.gbudb.net", "on our blacklist", "is blocklisted",
    "cbl.abuseat.org",
]  # fmt: skip


def test_a_named_blocklist_decides_whatever_the_code() -> None:
    texts = [f"Service unavailable; client [192.0.2.9] {text}" for text in LISTS]
    codes = ("550", "554 5.7.1", "421", "5.1.1", None)
    cases = [
        (("EMAIL", "BOUNCED", code, f"{code or ''} {text}"), ("sender_blocked",))
        for text in texts
        for code in codes
    ]
    assert wrong(cases) == []


def test_a_list_of_links_is_about_content() -> None:
    for name in ("multi.surbl.org", "black.uribl.com", "dbl.spamhaus.org"):
        assert bounced(f"554 5.7.1 a domain in your message is listed in {name}")[1] == "content_rejected"


# ------------------------------------------------------------------------------------------------ states


WORDS_AND_STATES = [
    ("DELIVERED", "delivered"), ("delivered_to_handset", "delivered"), ("Partially-Delivered", "delivered"),
    ("SENT", "accepted"), ("Delivered To Operator", "accepted"), ("ACCEPTD", "accepted"), ("Opened", "read"),
    ("played", "read"), ("queued", "pending"), ("Delivery Delay", "pending"), ("ENROUTE", "pending"),
    ("HardBounce", "bounced"), ("UNDELIV", "bounced"), ("undelivered", "bounced"), ("FAILED", "failed"),
    ("Rendering Failure", "failed"), ("dropped", "suppressed"), ("Manual_Suppression", "suppressed"),
    ("canceled", "suppressed"), ("never heard", "unknown"), (None, "unknown"), ("", "unknown"),
]  # fmt: skip


def test_words_of_providers() -> None:
    told = judged(*(("EMAIL", word, None, None) for word, _ in WORDS_AND_STATES))
    assert [row[0] for row in told] == [state for _, state in WORDS_AND_STATES]


@pytest.mark.parametrize(
    ("code", "state"), [("250", "delivered"), ("2.0.0", "delivered"), ("451", "pending"), ("550", "bounced")]
)
def test_a_missing_word_leaves_the_code_to_tell(code: str, state: str) -> None:
    for missing in (None, "", "None", " NULL "):
        assert judged(("EMAIL", missing, code, None))[0][0] == state


def test_an_unknown_word_is_never_a_success() -> None:
    assert judged(("EMAIL", "FOO", "250", None)) == [("unknown", None, None)]
    assert judged(("EMAIL", "FOO", "550", "5.1.1 user unknown"))[0] == (
        "bounced",
        "invalid_recipient",
        "hard",
    )


def test_a_missing_word_with_a_telling_text() -> None:
    assert judged((None, None, None, "mailbox full"))[0] == ("bounced", "mailbox_full", "soft")
    assert judged(("SMS", None, "30002", None))[0] == ("failed", "sender_error", "block")


def test_failures_of_messaging_by_number() -> None:
    assert judged(("WHATSAPP", "failed", "131026", None))[0] == ("bounced", "invalid_recipient", "hard")
    assert judged(("WHATSAPP", "failed", "131047", None))[0] == ("failed", "sender_error", "block")
    assert judged(("WHATSAPP", "failed", "131050", None))[0] == ("suppressed", "opted_out", "hard")
    assert judged(("SMS", "Undelivered", "ER-08", None))[0] == ("failed", "sender_error", "block")


def test_a_suppression_list_makes_a_bounce_suppressed() -> None:
    assert bounced("Address is on the suppression list for your account") == (
        "suppressed",
        "opted_out",
        "hard",
    )


def test_pending_is_explained_only_as_a_deferral() -> None:
    assert judged(("EMAIL", "QUEUED", None, None)) == [("pending", None, None)]
    assert judged(("EMAIL", "QUEUED", "250", None)) == [("pending", None, None)]
    assert judged(("EMAIL", "DEFERRED", "451", "4.7.1 greylisted")) == [
        ("pending", "temporary_failure", "soft")
    ]


# ------------------------------------------------------------------------------------------------ what must not matter

WORDS = st.sampled_from(sorted({word for case in CASES for word in case[3].split()}))
TEXTS = st.one_of(
    st.sampled_from([case[3] for case in CASES]),
    st.lists(WORDS, max_size=15).map(" ".join),
    st.text(max_size=60),
)
SPACES = st.sampled_from([" ", "  ", "\t", "\r\n ", "\n", " \r\n\t"])


@settings(max_examples=40, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=20), st.data())
def test_spacing_and_folding_do_not_matter(texts: list[str], data: st.DataObject) -> None:
    folded = [re.sub(" ", lambda _: data.draw(SPACES), text) for text in texts]
    cases, others = ([("EMAIL", "BOUNCED", "550", text) for text in variant] for variant in (texts, folded))
    assert judged(*cases) == judged(*others)


@settings(max_examples=40, deadline=None)
@given(st.lists(TEXTS.filter(lambda text: text.upper().lower() == text.lower()), min_size=1, max_size=20))
def test_case_does_not_matter(texts: list[str]) -> None:
    upper = judged(*(("EMAIL", "BOUNCED", "550", text.upper()) for text in texts))
    assert judged(*(("email", "bounced", "550", text.lower()) for text in texts)) == upper


@settings(max_examples=30, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=20), st.randoms())
def test_the_order_of_rows_does_not_matter(texts: list[str], random: object) -> None:
    cases = [("EMAIL", "BOUNCED", None, text) for text in texts]
    shuffled = list(range(len(cases)))
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    expected = judged(*cases)
    assert judged(*(cases[place] for place in shuffled)) == [expected[place] for place in shuffled]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["DELIVERED", "read", "Sent", "ACCEPTED", "opened", "delivered to operator"]),
    st.sampled_from(["EMAIL", "SMS", "WHATSAPP", None]),
    st.sampled_from([None, "550", "5.1.1", "30005", "131026"]),
    TEXTS,
)
def test_what_arrived_never_gets_a_cause(
    word: str, platform: str | None, code: str | None, text: str
) -> None:
    state, category, permanence = judged((platform, word, code, text))[0]
    assert state in ("delivered", "read", "accepted")
    assert (category, permanence) == (None, None)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["EMAIL", "SMS", "WA", None]), st.text(max_size=9), st.text(max_size=9), TEXTS
        ),
        max_size=10,
    )
)
def test_every_input_is_judged_within_the_vocabulary(cases: list[tuple[str | None, str, str, str]]) -> None:
    for state, category, permanence in judged(*cases):
        assert state in STATES
        assert category is None or category in CATEGORIES
        assert (permanence is None) == (category is None)
        assert permanence in (None, "hard", "soft", "block")


@pytest.mark.parametrize(
    "unit", ["user ", "a@", "5.1.1 ", "550-", "user unknown ", "mailbox .. ", "(((", "é ", "\u0000"]
)
def test_hostile_texts_are_judged(unit: str) -> None:
    assert bounced(unit * (100_000 // len(unit)))[0] == "bounced"


def test_every_documented_case_is_judged_alike_however_it_is_written() -> None:
    texts = [text for *_, text in CASES]
    plain = judged(*(("EMAIL", "BOUNCED", None, text) for text in texts))
    spellings: list[Callable[[str], str]] = [
        str.upper,
        str.swapcase,
        lambda text: text.replace(" ", "\u00a0 "),
        lambda text: text.replace(" ", "\\r\\n"),
        lambda text: f'"{text}"',
        lambda text: "smtp; " + text.replace(" ", "\r\n\t"),
    ]
    for spell in spellings:
        told = judged(*(("EMAIL", "bounced ", None, spell(text)) for text in texts))
        changed = [(text, a, b) for text, a, b in zip(texts, plain, told, strict=True) if a != b]
        assert changed == []


def test_lines_of_a_reply_are_joined() -> None:
    text = "550-5.1.1 The email account that you\r\n550-5.1.1 tried to reach does\r\n550 5.1.1 not exist."
    assert bounced(text) == ("bounced", "invalid_recipient", "hard")


@pytest.mark.parametrize(
    "text",
    [
        "Exim 4.50 on port 587, 4:50, 17.05.2026",
        "queue 5505.1.1.2 from 5.1.1.1",
        "message of 550 bytes, id 4A550B",
        "v5.1.12",
    ],
)
def test_numbers_that_are_no_codes(text: str) -> None:
    assert bounced(text)[1] == "unknown"


def test_a_temporary_code_softens_all_but_what_speaks_of_the_address() -> None:
    assert bounced("451 5.2.1 try again", "451")[2] == "soft"
    assert bounced("554 4.1.1 refused")[2] == "soft"
    assert bounced("450 4.1.1 user unknown")[2] == "hard"


# ------------------------------------------------------------------------------------------------ the file of rules


def _example(phrase: str) -> str:
    """Write out one text that a phrase describes."""
    spelt = re.sub(r"\(([^()|]*)\|[^()]*\)", r"\1", phrase)
    while spelt != phrase:
        phrase, spelt = spelt, re.sub(r"\(([^()|]*)(?:\|[^()]*)?\)", r"\1", spelt)
    return phrase.replace("..", "so").replace("*", "").replace("_", "so")


@pytest.mark.parametrize("section", ["phrase", "weak"])
def test_every_phrase_fits_what_it_describes(section: str) -> None:
    for rule in phrases(section):
        texts = pl.DataFrame({"t": [_example(phrase) for phrase in rule.says]})
        fits = texts.select(normal(pl.col("t")).str.contains(rule.pattern)).to_series()
        assert [phrase for phrase, fit in zip(rule.says, fits, strict=True) if not fit] == []


@pytest.mark.parametrize("section", ["phrase", "weak"])
def test_no_phrase_fits_a_text_without_words(section: str) -> None:
    empty = pl.DataFrame({"t": ["", " ", " . ", "..."]}).select(normal(pl.col("t"))).to_series()
    assert [rule.says for rule in phrases(section) if empty.str.contains(rule.pattern).any()] == []


def test_the_file_of_rules_speaks_of_known_things() -> None:
    named = {
        rule["category"] for section in ("phrase", "weak", "enhanced", "number") for rule in rules()[section]
    }
    named |= set(rules()["status_cause"]) | {v for k, v in rules()["reply"].items() if k.isdigit()}
    assert named <= set(CATEGORIES)
    assert len(CATEGORIES) == 14
    assert set(rules()["states"]) == set(STATES) - {"unknown"}
    assert {about.permanence for about in categories().values()} == {"hard", "soft", "block"}
    assert all(rule["source"] for rule in rules()["phrase"])
    assert set(READY) >= {"..", "*"}
    assert OPERATOR.split("a (b|c)*")


def test_no_word_has_two_states() -> None:
    words = sorted(word for words in rules()["states"].values() for word in words.split())
    assert [one for one, other in pairwise(words) if one == other] == []


# ------------------------------------------------------------------------------------------------ frames

ROWS = pl.DataFrame(
    {
        "public_id": ["a", "b", "c", "d", "e"],
        "platform": ["EMAIL", "SMS", None, "EMAIL", "EMAIL"],
        "delivery_status": ["BOUNCED", None, "DELIVERED", "SENT", "BOUNCED"],
        "delivery_code": ["550", None, "x", "250", None],
        "delivery_error_detail": ["5.1.1 nope", None, None, None, "mailbox full"],
        "created_at": [datetime(2026, 5, 1, tzinfo=UTC)] * 5,
    },
    schema_overrides={"platform": pl.Categorical},
)
TOLD = [
    ("a", "bounced", "invalid_recipient", "hard"), ("b", "unknown", None, None), ("c", "delivered", None, None),
    ("d", "accepted", None, None), ("e", "bounced", "mailbox_full", "soft"),
]  # fmt: skip


def test_polars_frames() -> None:
    told = classify(ROWS)
    assert told.select("public_id", *RESULT).rows() == TOLD
    assert told.drop(RESULT).equals(ROWS)
    assert told.drop(RESULT).schema == ROWS.schema
    assert classify(told).equals(told)
    lazy = classify(ROWS.lazy())
    assert isinstance(lazy, pl.LazyFrame)
    assert lazy.collect().equals(told)


def test_pandas_frames() -> None:
    frame = ROWS.to_pandas().set_index(pd.Index([5, 4, 3, 2, 1]))
    told = classify(frame)
    assert list(told.index) == [5, 4, 3, 2, 1]
    pd.testing.assert_frame_equal(told.drop(columns=list(RESULT)), frame)
    assert told["bounce_category"].dropna().tolist() == ["invalid_recipient", "mailbox_full"]


def test_arrow_tables() -> None:
    told = classify(ROWS.to_arrow())
    assert isinstance(told, pa.Table)
    assert pl.DataFrame(told).select("public_id", *RESULT).rows() == TOLD


def test_duckdb_relations() -> None:
    connection = duckdb.connect()
    connection.register("loaded", ROWS.with_columns(pl.col("platform").cast(pl.String)).to_arrow())
    connection.execute("CREATE TABLE conversations AS SELECT * FROM loaded")
    told = classify(connection.table("conversations"))
    assert isinstance(told, duckdb.DuckDBPyRelation)
    assert classify(told).project("public_id", *RESULT).order("public_id").fetchall() == TOLD


def test_rows_of_a_duckdb_table_stay_in_their_order() -> None:
    connection = duckdb.connect()
    many = pl.concat([ROWS.with_columns(pl.col("platform").cast(pl.String))] * 100_000)
    many = many.with_columns(public_id=pl.int_range(pl.len()).cast(pl.String), n=pl.int_range(pl.len()))
    connection.register("loaded", many.to_arrow())
    connection.execute("SET threads = 4; CREATE TABLE conversations AS SELECT * FROM loaded")
    told = classify(connection.table("conversations")).pl()
    assert told.columns == [*many.columns, *RESULT]
    assert told["n"].equals(many["n"])


def test_empty_frames() -> None:
    assert classify(ROWS.clear()).schema == classify(ROWS).schema
    assert classify(ROWS.clear().to_pandas()).columns.tolist() == classify(ROWS).columns


def test_frames_without_outcomes_are_refused() -> None:
    with pytest.raises(InputError, match="lacks delivery_code"):
        classify(ROWS.drop("delivery_code"))
    with pytest.raises(InputError, match="is no frame of rows"):
        classify([1, 2])


def test_it_is_at_the_front_door() -> None:
    assert d22kit.classify is classify
