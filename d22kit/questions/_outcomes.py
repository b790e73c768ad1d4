"""What became of each row: outcomes read once per distinct word, code and text, and counted in cells."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from d22kit.questions._cube import count

__all__ = ["ADDED", "COUNTS", "OPEN", "OUTCOME", "PERMANENCE", "outcome_counts"]

OUTCOME = ("platform", "delivery_status", "delivery_code", "delivery_error_detail")
"""The columns that an outcome is read from."""

COUNTS = (
    "attempted",
    "suppressed",
    "pending",
    "accepted",
    "delivered",
    "read_receipts",
    "bounced",
    "bounced_hard",
    "bounced_soft",
    "bounced_block",
    "failed",
    "unknown",
)

ADDED = ("direction", "attempted", "initiator", "delivery_state", "bounce_category", "bounce_permanence")
"""Names that the role map and the outcomes add to a cube, so that no group may have them."""

OPEN = ("pending", "accepted")
"""States whose outcome may still come."""

PERMANENCE = ("hard", "soft", "block")


def outcome_counts(names: Iterable[str] = (*COUNTS, "attempt_unmapped")) -> list[pl.Expr]:
    """Return the rows of each cell per outcome."""
    state, attempt = pl.col("delivery_state"), pl.col("attempted")
    sent = attempt & (state != "suppressed")
    bounced = attempt & (state == "bounced")
    meanings = {
        "attempted": sent,
        **{
            name: attempt & (state == name)
            for name in ("suppressed", "pending", "accepted", "failed", "unknown")
        },
        "delivered": attempt & state.is_in(("delivered", "read")),
        "read_receipts": attempt & (state == "read"),
        "bounced": bounced,
        **{f"bounced_{kind}": bounced & (pl.col("bounce_permanence") == kind) for kind in PERMANENCE},
        "attempt_unmapped": attempt.is_null(),
    }
    return [count(meanings[name]).alias(name) for name in names]
