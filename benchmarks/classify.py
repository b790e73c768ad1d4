"""How long it takes to classify, mask and group texts that are nearly all different.

    python benchmarks/classify.py --rows 10_000_000 --texts 100_000

The worst case: every distinct text differs even after masking has taken addresses and ids away. Real lenders have a
few hundred templates, and are faster.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from typing import Any

import polars as pl

from d22kit import classify
from d22kit.masking import mask, template
from d22kit.questions.classify import KEYS, classify_distinct

TEXTS = (
    "550 5.1.1 <{name}@acme.example>: Recipient address rejected: User unknown in local recipient table",
    "552-5.2.2 The email account that you tried to reach is over quota {name}",
    "421 4.7.0 [TSS04] Messages from {ip} temporarily deferred due to user complaints - {name}",
    "554 5.7.1 Service unavailable; Client host [{ip}] blocked using zen.spamhaus.org {name}",
    "connect to mx.{name}.example[{ip}]:25: Connection timed out",
    "550 5.4.1 Recipient address rejected: Access denied. AS(201806281) [{name}.eop-nam02.prod.protection.outlook.com]",
    "{name} said something that no rule knows, and said it at some length, as gateways of {name} like to do",
)


def distinct_texts(size: int, seed: int = 0) -> pl.DataFrame:
    """Make distinct outcomes of one text each."""
    dice = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = ["".join(dice.choices(letters, k=8)) + f"{n:x}" for n in range(size)]
    texts = [dice.choice(TEXTS).format(name=name, ip=f"192.0.2.{n % 250}") for n, name in enumerate(names)]
    outcomes = {"platform": "EMAIL", "delivery_status": "BOUNCED", "delivery_code": "550"}
    frame = pl.DataFrame({"delivery_error_detail": texts})
    return frame.with_columns(pl.lit(value).alias(key) for key, value in outcomes.items()).select(KEYS)


def timed(name: str, act: Callable[[], Any]) -> None:
    """Print how long an act takes."""
    start = time.perf_counter()
    act()
    print(f"{name:<60} {time.perf_counter() - start:7.2f} s")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--texts", type=int, default=100_000)
    asked = parser.parse_args()
    known = distinct_texts(asked.texts)
    rows = known.sample(asked.rows, with_replacement=True, seed=0)
    timed(f"classify {asked.texts:,} distinct texts", lambda: classify_distinct(known))
    timed(f"mask {asked.texts:,} distinct texts", lambda: mask(known["delivery_error_detail"]))
    timed(f"template {asked.texts:,} distinct texts", lambda: template(known["delivery_error_detail"]))
    timed(f"classify {asked.rows:,} rows with {asked.texts:,} distinct texts", lambda: classify(rows))
    hostile = known.head(1).with_columns(delivery_error_detail=pl.lit("user (a@b 1.2.3 5.1.1 " * 5_000))
    timed("classify one text of 110,000 characters", lambda: classify_distinct(hostile))


if __name__ == "__main__":
    main()
