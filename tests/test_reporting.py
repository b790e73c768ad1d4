"""The report: whole, offline, the same for the same data, and harmless whatever the data says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

import d22kit
from d22kit.errors import InputError, StoreNotFoundError
from d22kit.schema import FRAME
from d22kit.simulator import HOLIDAYS, NOW, Simulation, generate

ZONE = "Asia/Dubai"
HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<!--<script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "line\u2028separator\u2029end",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egnisrever",
    "حملة التذكير",
    "\"'><b>bold</b> & more",
    None,
    "",
    "x" * 300,
)
SPEC = r'^    "(\w+)": (\{.*\}),?$'
Start = Callable[..., Simulation]


class Page(HTMLParser):
    """What a page is made of: elements, visible text, and the text of its scripts."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.scripts, self._inside = "", [], ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("report") / "data"
    with d22kit.simulate(60_000, seed=1) as service:
        d22kit.sync(service.endpoint, data, progress=False)
    return data


@pytest.fixture(scope="module")
def page(store: Path) -> str:
    return d22kit.report(store.parent / "report.html", store, tz=ZONE).read_text(encoding="utf-8")


def rows(*, platforms: tuple[str | None, ...], each: int = 40) -> pl.DataFrame:
    """Rows whose words are what they are given, every hour one of each."""
    start = datetime(2026, 4, 1, tzinfo=UTC)
    values = [
        {
            "public_id": f"{i:024x}",
            "platform": platforms[i % len(platforms)],
            "purpose": platforms[(i + 1) % len(platforms)],
            "type": "OUTBOUND",
            "by": "SYSTEM",
            "operation": "SEND",
            "delivery_status": ("DELIVERED", "BOUNCED")[i % 3 == 0],
            "delivery_code": "550",
            "created_at": start + timedelta(hours=i),
            "updated_at": start + timedelta(hours=i, minutes=3),
        }
        for i in range(each * len(platforms))
    ]
    return pl.DataFrame(values, schema=FRAME)


def written(simulation: Start, frame: pl.DataFrame, folder: Path, **options: object) -> str:
    d22kit.sync(simulation(frame).endpoint, folder / "data", progress=False)
    path = d22kit.report(folder / "page.html", folder / "data", **options)  # type: ignore[arg-type]
    return path.read_text(encoding="utf-8")


def specs(source: str) -> dict[str, dict[str, object]]:
    """The charts' specifications, as the page's own script reads them."""
    return {name: json.loads(spec) for name, spec in re.findall(SPEC, source, flags=re.MULTILINE)}


def test_the_headline_is_what_the_answers_say(store: Path, page: str) -> None:
    frame = d22kit.load(store)
    months = d22kit.delivery(frame, every="month", tz=ZONE).filter(pl.col("period_state") == "complete")
    last, before = months.row(-1, named=True), months.row(-2, named=True)
    text = Page(page).text
    assert f"{last['attempted']:,}" in text
    for share in ("delivered_of_attempted_share", "bounced_of_attempted_share"):
        assert f"{last[share]:.1%}" in text
        assert f"95% interval {last[share + '_lo']:.1%} to {last[share + '_hi']:.1%}" in text
        change = round(100 * last[share], 1) - round(100 * before[share], 1)  # what is shown adds up
        assert f"{'+' if change > 0 else '−'}{abs(change):.1f} points" in text


def test_planted_incidents_are_told_in_words(page: str) -> None:
    text = Page(page).text
    assert "Bounce rate: EMAIL" in text
    assert "Failure rate: SMS" in text
    assert "13–19 Apr 2026" in text
    assert "Delivery rate: EMAIL" not in text, "a fall that bounces explain is told once"


def test_a_calendar_excuses_holidays(store: Path, page: str, tmp_path: Path) -> None:
    uae = d22kit.Calendar.uae(holidays=HOLIDAYS)
    excused = d22kit.report(tmp_path / "page.html", store, calendar=uae).read_text(encoding="utf-8")
    assert Page(excused).text.count("Volume: ") < Page(page).text.count("Volume: ")
    assert "Bounce rate: EMAIL" in Page(excused).text


def test_causes_come_with_what_to_do_and_data_with_its_freshness(store: Path, page: str) -> None:
    text = Page(page).text
    for action in d22kit.bounces(d22kit.load(store))["action"].unique():
        assert action in text
    state = d22kit.status(store)
    assert f"from version {state.version} of the store" in text
    for fact in ("complete up to", "set apart", "parts of a sync still to do", "last audit"):
        assert fact in text


def test_it_is_whole_without_a_network(page: str) -> None:
    parsed = Page(page)
    for tag, attributes in parsed.elements:
        assert not {"src", "srcset", "action", "ping"} & attributes.keys(), (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert "default-src 'none'" in page
    assert "window.d22kit.draw = " in page
    assert len(page) < 3_000_000


def test_it_can_be_read_without_seeing_it(page: str) -> None:
    parsed = Page(page)
    for landmark in ("header", "nav", "main", "footer", "h1"):
        assert len(parsed.all(landmark)) == 1, landmark
    assert parsed.all("html")[0]["lang"] == "en-GB"
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in parsed.all("section"):
        assert attributes["aria-labelledby"] in ids
    for attributes in parsed.all("a"):
        assert (attributes["href"] or "").removeprefix("#") in ids
    charts = [a for _, a in parsed.elements if a.get("role") == "img"]
    assert len(charts) == len(specs(page)) >= 9
    assert all(len(a["aria-label"] or "") > 20 for a in charts)
    captions = len(parsed.all("caption"))
    assert captions == len(charts), "every chart has its table"
    for attributes in parsed.all("th"):
        assert attributes["scope"] in ("col", "row")
    regions = [a["aria-label"] for _, a in parsed.elements if a.get("role") == "region"]
    assert len(regions) == len(set(regions)) == captions, "each table is told from its section"


def test_good_news_raises_no_alarm(page: str) -> None:
    text = Page(page).text
    marked = [
        attributes for attributes in Page(page).all("div") if attributes.get("class") == "figure unusual"
    ]
    assert "beyond its usual variation" in text, "bounces fell by more than they usually do"
    assert marked == []


def test_a_chart_stays_with_its_heading_in_print(page: str) -> None:
    assert ".whole, .figure, .episodes li, tr, .facts { break-inside: avoid; }" in page
    assert page.count('<div class="whole">') == len(specs(page))


def test_it_holds_no_row(store: Path, page: str) -> None:
    frame = d22kit.load(store)
    for key in frame["public_id"].sample(200, seed=1):
        assert key not in page
    for detail in frame["delivery_error_detail"].drop_nulls().unique():
        assert len(detail) < 25 or detail not in page


def test_the_same_store_gives_the_same_page(store: Path, page: str, tmp_path: Path) -> None:
    again = d22kit.report(tmp_path / "again.html", store, tz=ZONE).read_text(encoding="utf-8")
    assert again == page


def test_hostile_words_show_as_text(simulation: Start, tmp_path: Path) -> None:
    source = written(simulation, rows(platforms=HOSTILE), tmp_path)
    parsed = Page(source)
    assert len(parsed.scripts) == 2
    assert not parsed.all("img")
    assert not parsed.all("b")
    data = parsed.scripts[-1]
    assert "</" not in data.replace("<\\/", "")
    assert "<!--" not in data
    assert not set("\u2028\u2029") & set(source)
    assert "{{ 7 * 7 }}" in parsed.text
    assert "حملة التذكير" in parsed.text
    assert "document.title" in parsed.text, "shown, and not run"
    assert len(specs(source)) >= 8


@pytest.mark.parametrize("count", [0, 1, 12])
def test_little_data_is_no_failure(simulation: Start, tmp_path: Path, count: int) -> None:
    source = written(simulation, generate(500, seed=3).tail(count), tmp_path, tz=ZONE)
    text = Page(source).text
    assert "What the numbers mean" in text
    assert "nan" not in text
    assert "None" not in text


def test_a_range_without_rows_says_so(store: Path, tmp_path: Path) -> None:
    path = d22kit.report(tmp_path / "page.html", store, since=NOW + timedelta(days=9))
    assert "no rows" in Page(path.read_text(encoding="utf-8")).text


def test_unmapped_and_unheard_rows_are_said(simulation: Start, tmp_path: Path) -> None:
    frame = rows(platforms=("EMAIL", "SMS"), each=400)
    odd = frame.with_columns(type=pl.when(pl.int_range(pl.len()) < 30).then(pl.lit("FAX")).otherwise("type"))
    text = Page(written(simulation, odd.cast(FRAME), tmp_path)).text  # type: ignore[arg-type]
    assert "Of 30 rows (3.8%) the role map cannot tell inbound or outbound" in text
    assert "No word maps to inbound" in text


def test_bad_places_are_refused_before_anything_is_written(store: Path, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "page.html", "s3://bucket/page.html"):
        with pytest.raises(InputError):
            d22kit.report(path, store)
    with pytest.raises(StoreNotFoundError):
        d22kit.report(tmp_path / "page.html", tmp_path / "nowhere")
    with pytest.raises(InputError, match="Asia/Dubai"):
        d22kit.report(tmp_path / "page.html", store, tz="Asia/Dubay")
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written_leaves_the_old_one(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("the old one")
    # A file name longer than a file system takes: root, who may write anywhere, fails too.
    long = tmp_path / f"{'x' * 250}.html"
    with pytest.raises(InputError, match="cannot be written"):
        d22kit.report(long, store, since=NOW)
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]
    d22kit.report(path, store, since=NOW)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WITNESS = """<script>
const seen = [];
addEventListener("error", e => seen.push("error " + e.message));
addEventListener("unhandledrejection", e => seen.push("rejection " + e.reason));
document.addEventListener("securitypolicyviolation", e => seen.push("refused " + e.blockedURI));
console.error = (...words) => seen.push("console " + words.join(" "));
addEventListener("load", () => setTimeout(() => {
  for (const entry of performance.getEntriesByType("resource")) seen.push("request " + entry.name);
  document.documentElement.dataset.seen = seen.join("; ");
}, 5000));
</script></head>"""
"""Tells the test what the page asked for and complained of; the browser's own traffic is not the page's."""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_a_browser_without_a_network_draws_every_chart(page: str, simulation: Start, tmp_path: Path) -> None:
    hostile = written(simulation, rows(platforms=HOSTILE), tmp_path)
    for source in (page, hostile):
        path = tmp_path / "watched.html"
        path.write_text(source.replace("</head>", WITNESS, 1), encoding="utf-8")
        drawn = browse(path)
        assert 'data-seen=""' in drawn, re.findall(r'data-seen="[^"]*"', drawn)
        charts = drawn.split(' data-spec="')[1:]
        assert len(charts) == len(specs(source))
        assert all("<svg" in chart[:2_000] for chart in charts)
        assert "<title>owned" not in drawn


def browse(path: Path) -> str:
    """Open a page in Chromium with every host unknown, and return what stands there in the end."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={path.parent / 'profile'}",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=30000", "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout
