"""Causes ranked and explained: sums that agree with `delivery`, and nothing personal in any label."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from test_masking import SECRETS

import d22kit
from d22kit.errors import InputError
from d22kit.questions.bounces import COLUMNS, Explanation, bounces, explain
from d22kit.questions.delivery import delivery

START = datetime(2026, 5, 1, tzinfo=UTC)
OUTCOMES = [
    ("DELIVERED", "250", None),
    ("BOUNCED", "550", "550 5.1.1 <ana{n}@acme.example>: user unknown"),
    ("BOUNCED", "552", "552 5.2.2 mailbox full"),
    ("FAILED", None, None),
    ("bounced", "554", "client [192.0.2.{n}] blocked using zen.spamhaus.org"),
    ("dropped", None, "on the suppression list"),
    ("QUEUED", None, None),
    ("SENT", None, None),
    ("odd", None, None),
]


def rows(size: int = 2_000, seed: int = 0) -> pl.DataFrame:
    """Rows of every outcome, inbound ones and unmapped ones among them."""
    dice = random.Random(seed)
    made = []
    for n in range(size):
        status, code, text = dice.choice(OUTCOMES)
        made.append(
            {
                "platform": dice.choice(["EMAIL", "SMS", None]),
                "type": dice.choice(["OUTBOUND", "OUTBOUND", "INBOUND", "HUH"]),
                "operation": dice.choice(["SEND", "SEND", "NOTE"]),
                "purpose": dice.choice(["REMINDER", "OFFER"]),
                "delivery_status": status,
                "delivery_code": code,
                "delivery_error_detail": text and text.format(n=n % 250),
                "created_at": START + timedelta(hours=n % 700),
                "updated_at": START + timedelta(hours=n % 700 + 1),
            }
        )
    return pl.DataFrame(made)


@pytest.mark.parametrize("by", [(), "platform", ("platform", "purpose")])
@pytest.mark.parametrize("level", ["category", "template"])
def test_states_sum_to_delivery(by: str | tuple[str, ...], level: str) -> None:
    frame = rows()
    groups = [by] if isinstance(by, str) else list(by)
    told = bounces(frame, by=by, level=level).group_by(*groups, "state").agg(pl.col("rows").sum())
    counted = delivery(frame, by=by, every="month")
    names = ("bounced", "failed", "suppressed")
    sums = counted.group_by(*groups, pl.lit(0).alias("all")).agg(pl.col(names).sum())
    expected = sums.unpivot(names, index=groups or None, variable_name="state", value_name="n")
    joined = expected.join(told, on=[*groups, "state"], how="full", nulls_equal=True)
    assert joined.height == expected.height
    assert joined["n"].to_list() == joined["rows"].to_list()


def test_columns_and_figures() -> None:
    told = bounces(rows(), by="platform")
    assert tuple(told.columns) == ("platform", *COLUMNS)
    shares = told.group_by("platform", "state").agg(pl.col("cause_share").sum())
    assert shares["cause_share"].to_list() == pytest.approx([1.0] * shares.height)
    assert told.filter(
        ~pl.col("per_1000_attempts").is_between("per_1000_attempts_lo", "per_1000_attempts_hi")
    ).is_empty()
    assert told.filter(pl.col("first_seen") > pl.col("last_seen")).is_empty()
    assert told["action"].null_count() == 0
    attempts = delivery(rows(), every="month")["attempted"].sum()
    hard = bounces(rows()).row(by_predicate=pl.col("category") == "invalid_recipient", named=True)
    assert hard["per_1000_attempts"] == pytest.approx(1000 * hard["rows"] / attempts)


def test_templates_group_what_is_one_error() -> None:
    told = bounces(rows(), level="template")
    assert tuple(told.columns) == (*COLUMNS, "platform", "code", "template", "pooled")
    unknown = told.filter(pl.col("category") == "invalid_recipient", pl.col("platform") == "EMAIL")
    assert unknown["template"].to_list() == ["550 5.1.1 <email>: user unknown"]
    assert told.filter(~pl.col("pooled"))["rows"].min() >= 10


def test_rare_templates_are_pooled_without_their_text() -> None:
    told = bounces(rows(300), level="template", k=1_000)
    assert told["pooled"].all()
    assert told["template"].null_count() == told["code"].null_count() == told.height
    assert told["rows"].sum() == bounces(rows(300))["rows"].sum()
    assert not bounces(rows(300), level="template", k=1)["pooled"].any()


def test_no_label_holds_what_was_planted() -> None:
    planted = (
        rows(20)
        .head(1)
        .join(pl.DataFrame({"delivery_error_detail": list(SECRETS)}), how="cross")
        .drop("delivery_error_detail")
    )
    frame = planted.rename({"delivery_error_detail_right": "delivery_error_detail"}).with_columns(
        type=pl.lit("OUTBOUND"),
        operation=pl.lit("SEND"),
        delivery_status=pl.lit("BOUNCED"),
        delivery_code=pl.lit("ana@acme.example"),
    )
    shown = bounces(frame, level="template", k=1)
    text = " ".join(shown.get_column("template").drop_nulls()) + " ".join(
        shown.get_column("code").drop_nulls()
    )
    leaked = [
        secret
        for secrets in SECRETS.values()
        for secret in secrets
        if len(secret) > 4 and secret.lower() in text.lower()
    ]
    assert leaked == []
    for detail, secrets in SECRETS.items():
        told = explain("ana@acme.example", detail)
        said = f"{told} {told!r} {told._repr_html_()}".lower()
        assert [
            secret
            for secret in secrets
            if len(secret) > 4 and secret != "Recipients" and secret.lower() in said
        ] == []


@pytest.mark.parametrize("name", ["all", "", "lit", "literal", "attempted "])
def test_a_group_may_have_any_name(name: str) -> None:
    frame = rows(200)
    expected = bounces(frame, by="platform").rows()
    renamed = frame.with_columns(pl.col("platform").alias(name))
    assert bounces(renamed, by=name).rows() == expected
    assert bounces(renamed.lazy(), by=name).rows() == expected


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="Known: category, template"):
        bounces(rows(5), level="cause")
    with pytest.raises(InputError, match="k=0 is not"):
        bounces(rows(5), k=0)
    with pytest.raises(InputError, match="Did you mean 'platform'"):
        bounces(rows(5), by="platfrom")


def test_nothing_to_tell() -> None:
    frame = rows(50).filter(pl.col("delivery_status") == "DELIVERED")
    assert bounces(frame).is_empty()
    assert bounces(frame.clear(), level="template").columns == [
        *COLUMNS,
        "platform",
        "code",
        "template",
        "pooled",
    ]


def test_kinds_come_back_as_they_came() -> None:
    frame = rows(200)
    expected = bounces(frame).rows()
    assert bounces(frame.lazy()).rows() == expected
    assert pl.DataFrame(bounces(frame.to_arrow())).select("state", "category", "rows").rows() == [
        (r[0], r[1], r[3]) for r in expected
    ]
    assert bounces(frame.to_pandas())["rows"].tolist() == [row[3] for row in expected]


def test_a_name_that_begins_as_a_word_of_a_rule_is_not_told() -> None:
    assert explain("550", "spam ipekoglu rejected").evidence == 'the phrase "spam …"'
    assert explain("550", "spamhaus list").evidence == 'the phrase "spamhaus"'


def test_a_case_is_explained_in_a_sentence() -> None:
    told = explain("550", "550 5.1.1 <ana@acme.example>: Recipient address rejected: User unknown")
    assert isinstance(told, Explanation)
    assert (told.state, told.category, told.permanence) == ("bounced", "invalid_recipient", "hard")
    assert str(told) == (
        "Bounced, and the address will not work again (invalid_recipient, hard): the address or number does not exist, "
        'has moved, or cannot receive on this channel. The phrase "recipient address rejected user unknown" says so. '
        "Correct or drop the contact; ask for another channel."
    )
    assert "<b>bounced · invalid_recipient · hard</b>" in told._repr_html_()


def test_weak_evidence_only_suggests() -> None:
    assert "The reply code 550 alone suggests so." in str(explain("550", None))
    assert "Do not drop the contact on this alone" in str(explain("550", None))
    told = str(explain("421", "come back tomorrow", status="deferred"))
    assert told.startswith(
        "Still pending, but it may work later (temporary_failure, soft): a passing trouble"
    )
    assert str(explain("554", "xyzzy")).endswith("says why. Read the most frequent templates and add a rule.")
    assert str(explain(None, "on the suppression list", status="dropped")).startswith(
        "Never handed over, and the"
    )
    assert (
        "Failed, though the address is fine (sender_error, block): the request or the account is wrong"
        in str(explain("21606", None, platform="SMS", status="failed"))
    )


@pytest.mark.parametrize(
    ("case", "evidence"),
    [
        (("5.1.1", None), "the enhanced status code 5.1.1"), (("550", None), "the reply code 550 alone"),
        (("499", "x"), "the first digit of the code, 4"), ((None, "nothing known"), "nothing in the code or text"),
        (("554", "refused"), 'the weak word "refused"'),
    ],
)  # fmt: skip
def test_evidence_is_named(case: tuple[str | None, str | None], evidence: str) -> None:
    assert explain(*case, status="BOUNCED").evidence == evidence


def test_channels_and_words() -> None:
    assert (
        explain("131026", None, platform="WHATSAPP", status="failed").evidence == "the provider's code 131026"
    )
    assert explain(None, None, status="HardBounce").evidence == "the status word hardbounce"
    assert str(explain("250", None)) == "Delivered: it arrived; there is nothing to explain."
    assert str(explain(None, None)).startswith("Unknown: neither")
    assert d22kit.explain is explain
