"""Every chart on every kind of lender, to be looked at: `python tests/gallery.py` writes PNGs and one page.

`python tests/gallery.py docs/overview.png` draws the picture of the README anew.

The lenders: the simulator's, a tiny one of 12 rows, a huge one of 40 platforms and three years, and a weird one
whose values are null, blank, long, Arabic, emoji, markup or look like code.
"""

from __future__ import annotations

import html
import struct
import sys
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import polars as pl

import d22kit
from d22kit import charts
from d22kit.questions.engagement import HoursRule
from d22kit.schema import FRAME
from d22kit.simulator import lender

ZONE = "Asia/Dubai"
RULE = HoursRule.us_regulation_f(zone=ZONE)
WEIRD = (
    None, "", "   ", "قناة الرسائل النصية القصيرة", "📱 WhatsApp 🇦🇪", "x" * 200, "x" * 199 + "y",
    "<script>alert(1)</script>", "<b>bold</b> & \"quoted\" 'text'", "a.b:c[d]\\", "datum['g']", "__proto__",
    "constructor",
    "EMAIL\r\nSMS\x00\x1b[31m", "NONE", "\u202egnisrever", "{{ jinja }} ${x} `y` %s {0}",
)  # fmt: skip


def _rows(count: int, platforms: tuple[str | None, ...], start: datetime, step: timedelta) -> pl.DataFrame:
    """Rows in a fixed pattern: no chance, no clock."""
    i = pl.int_range(count, dtype=pl.Int64)
    pick = ((i * 7919) % 104729 * len(platforms)) // 104729
    words = ["DELIVERED"] * 68 + ["READ"] * 10 + ["BOUNCED"] * 9 + ["FAILED"] * 4 + ["SENT"] * 3 + ["odd"] * 3
    created = pl.lit(start) + i * pl.lit(step)
    frame = pl.select(
        public_id=i.cast(pl.String).str.zfill(24),
        platform=_cycle(platforms, pick),
        type=pl.when((i * 13) % 29 == 0).then(pl.lit("INBOUND")).otherwise(pl.lit("OUTBOUND")),
        by=_cycle(("SYSTEM", "AGENT"), i % 2),
        operation=pl.lit("SEND"),
        delivery_status=_cycle(words, (i * 31) % 97),
        delivery_code=_cycle(("250", "550", "421"), i % 3),
        delivery_error_detail=_cycle((None, "550 5.1.1 user unknown", "421 try later"), i % 3),
        created_at=created,
        updated_at=created + pl.duration(seconds=90),
    )
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in FRAME.items() if name not in frame.columns]
    return frame.with_columns(missing).select(*FRAME).cast(FRAME)  # type: ignore[arg-type]


def _cycle(words: Sequence[str | None], place: pl.Expr) -> pl.Expr:
    return pl.lit(pl.Series(words, dtype=pl.String)).gather(place)


@cache
def lenders() -> dict[str, pl.DataFrame]:
    """Rows of each lender."""
    start = datetime(2023, 6, 1, tzinfo=UTC)
    names = tuple(f"PLATFORM_{i:02}" for i in range(40))
    weird = _rows(6000, WEIRD, datetime(2026, 3, 1, tzinfo=UTC), timedelta(minutes=23))
    lost = pl.int_range(pl.len()) % 50 == 0
    return {
        "simulator": lender.generate(40_000, seed=0),
        "tiny": _rows(12, ("EMAIL", "SMS"), datetime(2026, 5, 1, tzinfo=UTC), timedelta(hours=7)),
        "huge": _rows(100_000, names, start, timedelta(days=3 * 365) / 100_000),
        "weird": weird.with_columns(pl.when(~lost).then("created_at").alias("created_at")),
    }


Draw = Callable[[pl.DataFrame], Any]
BY = {"by": "platform", "tz": ZONE}
DRAWN: dict[str, Draw] = {
    "volume": lambda f: charts.volume(d22kit.volume(f, **BY)),
    "volume_month": lambda f: charts.volume(d22kit.volume(f, every="month", tz=ZONE)),
    "heatmap": lambda f: charts.heatmap(d22kit.heatmap(f, tz=ZONE), tz=ZONE),
    "heatmap_groups": lambda f: charts.heatmap(d22kit.heatmap(f, **BY), tz=ZONE),
    "share": lambda f: charts.share(d22kit.share(f, **BY)),
    "delivery": lambda f: charts.delivery(d22kit.delivery(f, **BY)),
    "delivery_week": lambda f: charts.delivery(d22kit.delivery(f, every="week", tz=ZONE)),
    "bounces": lambda f: charts.bounces(d22kit.bounces(f)),
    "bounces_template": lambda f: charts.bounces(d22kit.bounces(f, by="platform", level="template")),
    "time_to_last_update": lambda f: charts.time_to_last_update(d22kit.time_to_last_update(f, by="platform")),
    "engagement": lambda f: charts.engagement(d22kit.engagement(f, **BY)),
    "contact_hours": lambda f: charts.contact_hours(d22kit.contact_hours(f, RULE), rule=RULE),
    "contact_hours_day": lambda f: charts.contact_hours(
        d22kit.contact_hours(f, RULE, by="platform", every="hour"), rule=RULE
    ),
    "compare": lambda f: charts.compare(d22kit.compare(f, metric="delivery_rate", **BY)),
    "compare_volume": lambda f: charts.compare(d22kit.compare(f, metric="volume", **BY)),
    "anomalies": lambda f: charts.anomalies(d22kit.anomalies(f, metric="volume", **BY)),
    "anomalies_rate": lambda f: charts.anomalies(d22kit.anomalies(f, metric="failure_rate", **BY)),
    "overview": partial(charts.overview, tz=ZONE),
}


def overview(path: Path) -> None:
    """Write one screen of answers as a picture."""
    import vl_convert

    charts.enable()
    spec = charts.overview(lender.generate(100_000, seed=0), tz=ZONE).to_dict()
    path.write_bytes(packed(vl_convert.vegalite_to_png(spec, vl_version="6.4", scale=1.5)))


def packed(png: bytes) -> bytes:
    """Press a PNG's pixels harder: a quarter of the size, the same picture."""
    chunks, place = [], 8
    while place < len(png):
        (size,) = struct.unpack_from(">I", png, place)
        chunks.append((png[place + 4 : place + 8], png[place + 8 : place + 8 + size]))
        place += size + 12
    pixels = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
    kept = [(kind, body) for kind, body in chunks if kind not in (b"IDAT", b"IEND")]
    whole = [*kept, (b"IDAT", zlib.compress(pixels, 9)), (b"IEND", b"")]
    return png[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in whole
    )


def main(place: str = "build/gallery", *only: str) -> None:
    """Write the gallery: `python tests/gallery.py [directory [lender or chart …]]`."""
    import vl_convert

    root = Path(place)
    if root.suffix == ".png":
        overview(root)
        return
    charts.enable()
    root.mkdir(parents=True, exist_ok=True)
    page = ["<!doctype html><meta charset=utf-8><title>Gallery</title>", charts.offline.script()]
    for who, frame in lenders().items():
        page.append(f"<h1>{html.escape(who)}</h1>")
        for name, draw in DRAWN.items():
            if only and not {who, name} & set(only):
                continue
            spec = draw(frame).to_dict()
            for mode, shown in (("light", spec), ("dark", charts.theme.darkened(spec))):
                png = vl_convert.vegalite_to_png(shown, vl_version="6.4", scale=1.5)
                (root / f"{who}-{name}-{mode}.png").write_bytes(png)
            page.append(f"<h2>{html.escape(name)}</h2>{charts.offline.figure(spec)}")
            print(f"{who:10} {name}")
    (root / "index.html").write_text("\n".join(page), encoding="utf-8")
    print(f"{root.resolve() / 'index.html'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
