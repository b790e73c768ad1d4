"""The notebooks run, anywhere and alone; what they conclude is what plain SQL counts."""

from __future__ import annotations

import json
import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import nbformat
import polars as pl
import pytest
from nbclient import NotebookClient
from traitlets.config import Config

import d22kit
from d22kit.simulator import INCIDENTS, generate, simulate
from d22kit.simulator.server import EMAIL, LENDER, PASSWORD

BOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
NAMES = ["01_first_look", "02_volume", "03_delivery", "04_engagement", "05_share_and_scale"]

# The kernel's client warns about its own sockets and settings.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Ran:
    """A notebook that was run from top to bottom."""

    def __init__(self, name: str, home: Path, **named: str) -> None:
        self.book: Any = nbformat.read(_path(name), 4)
        self.home, self.temporary = home / "home", home / "tmp"
        self.home.mkdir()
        self.temporary.mkdir()
        clean = {key: value for key, value in os.environ.items() if not key.startswith("D22KIT_")}
        places = {"TMPDIR": str(self.temporary), "JUPYTER_RUNTIME_DIR": str(home / "runtime")}
        client = NotebookClient(
            self.book,
            kernel_name="python3",
            timeout=300,
            resources={"metadata": {"path": str(self.home)}},
            config=Config(KernelManager={"shutdown_wait_time": 60}),  # a kernel tidies up as it leaves
        )
        client.execute(env=clean | places | named)

    def said(self, cell: str) -> str:
        """The sentence that a cell concludes with."""
        found = next(each for each in self.book.cells if each.id == cell)
        return str(found.outputs[-1]["data"]["text/markdown"])

    @property
    def errors(self) -> list[str]:
        outputs = [output for cell in self.book.cells for output in cell.get("outputs", ())]
        return [output["text"] for output in outputs if output.get("name") == "stderr"]

    @property
    def kinds(self) -> set[str]:
        outputs = [output for cell in self.book.cells for output in cell.get("outputs", ())]
        return {kind for output in outputs for kind in output.get("data", ())}


def _path(name: str) -> Path:
    return next(path for path in BOOKS if path.stem == name)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Any:
    kept: dict[str, Ran] = {}

    def run(name: str) -> Ran:
        if name not in kept:
            kept[name] = Ran(name, tmp_path_factory.mktemp(name))
        return kept[name]

    return run


@pytest.fixture(scope="module")
def sql() -> Any:
    """Ask the simulated lender of the notebooks in plain SQL; `wall` is Dubai's wall clock."""
    engine = duckdb.connect()
    engine.register("rows", generate(60_000).to_arrow())
    engine.sql(
        "create table lender as select *, created_at at time zone 'UTC' + interval 4 hour as wall from rows"
    )
    return lambda query: engine.sql(query).fetchall()


def test_all_of_them_are_tested() -> None:
    assert [path.stem for path in BOOKS] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_is_kept_without_what_it_said(name: str) -> None:
    raw = json.loads(_path(name).read_text(encoding="utf-8"))
    nbformat.validate(raw)
    assert raw["metadata"]["kernelspec"]["name"] == "python3"
    assert len({cell["id"] for cell in raw["cells"]}) == len(raw["cells"])
    for cell in raw["cells"]:
        assert not cell["metadata"]
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@pytest.mark.parametrize("name", NAMES)
def test_each_chart_is_followed_by_its_conclusion(name: str) -> None:
    cells = nbformat.read(_path(name), 4).cells
    for cell, after in pairwise(cells):
        if re.search(r"charts\.(?!enable)\w+", cell.source):
            assert "Markdown(" in after.source or after.id.endswith("-table"), cell.id


@pytest.mark.parametrize("name", NAMES)
def test_every_page_it_points_to_is_there(name: str) -> None:
    told = [cell.source for cell in nbformat.read(_path(name), 4).cells if cell.cell_type == "markdown"]
    for target in re.findall(r"\]\(([^):]+)\)", " ".join(told)):
        assert (_path(name).parent / target).exists(), target


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_silently_from_anywhere_and_leaves_nothing(name: str, ran: Any) -> None:
    book = ran(name)
    assert book.errors == []
    assert not any("widget" in kind for kind in book.kinds), "a copy as HTML would ask the network for it"
    assert list(book.home.iterdir()) == []
    assert [path.name for path in book.temporary.iterdir() if path.name.startswith("d22kit-")] == []


DELIVERED = "lower(delivery_status) in ('delivered', 'read', 'opened')"


def test_the_first_look(ran: Any, sql: Any) -> None:
    book = ran("01_first_look")
    week, rows = sql(
        "select date_trunc('week', wall), count(*) from lender group by 1 order by 2 desc limit 1"
    )[0]
    assert f"began on {week.day} {week:%B %Y}, with {rows:,} rows" in book.said("volume-words")
    platform, rows = sql("select platform, count(*) from lender group by 1 order by 2 desc limit 1")[0]
    assert f"{platform} carries the most: {rows:,} of 60,000" in book.said("volume-words")
    rates = f"""
        select platform,
            100.0 * count(*) filter (type = 'INBOUND') / count(*) filter (type = 'OUTBOUND' and {DELIVERED})
        from lender group by 1 order by 2 desc
    """
    told = ", ".join(f"{platform} {rate:.1f}" for platform, rate in sql(rates))
    assert book.said("engagement-words").endswith(f"{told}.")
    delivered = dict(
        sql(f"select platform, count(*) from lender where type = 'OUTBOUND' and {DELIVERED} group by 1")
    )
    shares = dict(re.findall(r"(\w+) ([\d.]+)%", book.said("delivery-words").split(". For")[0]))
    attempted = d22kit.delivery(generate(60_000), by="platform", every="quarter")
    attempts = dict(attempted.group_by("platform").agg(pl.col("attempted").sum()).iter_rows())
    assert shares == {name: f"{delivered[name] / attempts[name]:.1%}"[:-1] for name in attempts}
    assert "18,000 rows" in book.said("extract-words")
    assert sql("select count(*) from lender where platform = 'EMAIL'") == [(18_000,)]


def test_the_volume(ran: Any, sql: Any) -> None:
    book = ran("02_volume")
    weekend = sql("select avg((isodow(wall) >= 6)::int) from lender")[0][0]
    assert f"Saturday and Sunday together have {weekend:.1%}" in book.said("week-words")
    moved = sql("select avg((wall::date <> (wall - interval 4 hour)::date)::int) from lender")[0][0]
    assert f"{moved:.1%} of the rows would fall on another day" in book.said("zone")
    growth = """
        select platform, count(*) filter (wall >= '2026-03-01' and wall < '2026-06-01')
            / count(*) filter (wall >= '2025-06-01' and wall < '2025-09-01')
        from lender group by 1 order by 2 desc
    """
    assert ", ".join(f"{name} × {times:.1f}" for name, times in sql(growth)) in book.said("trend-words")
    share = """
        select avg((platform = 'WHATSAPP')::int) from lender where wall >= '{}' and wall < '{}'
    """
    then, now = (
        sql(share.format(*span))[0][0]
        for span in (("2025-04-01", "2025-07-01"), ("2026-04-01", "2026-07-01"))
    )
    assert f"WHATSAPP moved most:** from {then:.0%} of the rows" in book.said("mix-words")
    assert f"to {now:.0%} in the latest" in book.said("mix-words")


def test_the_volume_finds_the_cancelled_campaign(ran: Any, sql: Any) -> None:
    book = ran("02_volume")
    planted = next(each for each in INCIDENTS if each.metric == "volume")
    assert f"{planted.platform} volume" in book.said("calendar-words").splitlines()[2]
    cancelled = sql("""
        select count(*) from lender
        where platform = 'SMS' and status = 'CANCELLED' and wall >= '2025-11-11 10:00' and wall < '2025-11-11 11:00'
    """)[0][0]
    assert book.said("day-words").startswith(f"**{cancelled} of that day's ")
    assert "between 10:00 and 11:00 and are CANCELLED.**" in book.said("day-words")


def test_the_delivery_finds_the_blocklisting(ran: Any, sql: Any) -> None:
    book = ran("03_delivery")
    assert book.said("alarm-words").startswith("**EMAIL bounce rate ")
    assert "in the week of 13 April" in book.said("alarm-words")
    bounced, attempted = sql("""
        select count(*) filter (lower(delivery_status) = 'bounced'), count(*) filter (
            lower(delivery_status) not in ('suppressed')
        )
        from lender where platform = 'EMAIL' and type = 'OUTBOUND' and wall >= '2026-04-13' and wall < '2026-04-20'
    """)[0]
    assert f"in the week of 13 April, {bounced / attempted:.1%}" in book.said("days-words")
    assert "sender blocked" in book.said("cause-words")
    assert "Block: find the list or policy" in book.said("cause-words")
    assert f"of the week's {bounced} bounces, say the same:** the recipient's side refuses" in book.said(
        "explain-words"
    )
    assert re.search(r"^> Bounced.*sender_blocked.*network is on our block", book.said("explain"))
    assert re.fullmatch(r"- SMS failure rate \S+ on 11 February 2026, [^\n]*", book.said("exercise"))


def test_the_engagement(ran: Any, sql: Any) -> None:
    book = ran("04_engagement")
    inbound, whatsapp = sql("""
        select count(*), count(*) filter (platform = 'WHATSAPP') from lender where type = 'INBOUND'
    """)[0]
    assert f"WHATSAPP brings {whatsapp / inbound:.0%} of what comes in" in book.said("rate-words")
    assert book.said("roles-mended") == f"**{inbound:,} inbound rows are back.**"
    hands = dict(
        sql("select platform, avg((\"by\" = 'AGENT')::int) from lender where type = 'OUTBOUND' group by 1")
    )
    most, least = max(hands, key=hands.__getitem__), min(hands, key=hands.__getitem__)
    told = f"started {hands[most]:.0%} of what went out by {most}, and {hands[least]:.0%} by {least}"
    assert told in book.said("hands-words")


def test_the_hours(ran: Any, sql: Any) -> None:
    book = ran("04_engagement")
    outside, outbound = sql("""
        select count(*) filter (hour(wall) < 8 or hour(wall) >= 21), count(*) from lender where type = 'OUTBOUND'
    """)[0]
    assert f"{outside:,} of {outbound:,} outbound rows" in book.said("hours-words")
    house = sql("""
        select platform, 1 - avg((
            hour(wall) >= 9 and (isodow(wall) <= 5 and hour(wall) < 18 or isodow(wall) = 6 and hour(wall) < 13)
        )::int) as outside, count(*) filter (isodow(wall) = 7) as sundays
        from lender where type = 'OUTBOUND' group by 1 order by 2
    """)
    assert ", ".join(f"{name} {share:.0%}" for name, share, _ in house) in book.said("house-words")
    assert f"Sundays alone: {sum(row[2] for row in house):,} rows" in book.said("house-words")


def test_the_extract_is_read_alike_by_all(ran: Any, sql: Any) -> None:
    book = ran("05_share_and_scale")
    bounced = sql("""
        select count(*) from lender where platform = 'EMAIL' and lower(delivery_status) = 'bounced'
        and created_at >= '2026-04-01 00:00+00' and created_at < '2026-05-01 00:00+00'
    """)[0][0]
    assert f"All three count {bounced} bounces" in book.said("plain-words")
    assert "is as it was written" in book.said("verify-words")
    assert "copy.parquet" in book.said("verify-words")
    assert "agree on all 60,000 rows" in book.said("engine-words")
    assert book.said("spark-run").startswith(("**Spark agrees: 60,000 rows.**", "**Not run here:**"))


def test_the_first_look_asks_the_service_that_the_environment_names(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with simulate(3_000, seed=7) as service:
        login = {"LENDER": LENDER, "EMAIL": EMAIL, "PASSWORD": PASSWORD, "ROOT": service.endpoint.root}
        named = {f"D22KIT_{key}": value for key, value in login.items()}
        book = Ran("01_first_look", tmp_path, D22KIT_DATA=str(store), **named)
        assert d22kit.load(store).sort("public_id").equals(service.truth())
    assert book.errors == []
    assert "of 3,000 rows" in book.said("volume-words")
    assert PASSWORD not in nbformat.writes(book.book)
    assert list(book.home.iterdir()) == []


def test_jupyterlab_runs_the_first_look_cell_by_cell_without_a_network(tmp_path: Path) -> None:
    from test_browser import CHROMIUM, SLOW, browser, jupyterlab  # skips where there is no playwright

    if not CHROMIUM:
        pytest.skip("browser tests need Chromium: apt-get install chromium")
    book = nbformat.read(_path("01_first_look"), 4)
    nbformat.write(book, tmp_path / "first.ipynb")
    codes = [cell for cell in book.cells if cell.cell_type == "code"]
    with jupyterlab(tmp_path) as url, browser("America/New_York") as window:
        page, wrong = window.page, []
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(f"{url}/lab/tree/first.ipynb?reset")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=SLOW)
        page.get_by_text("| Idle").wait_for(timeout=SLOW)
        page.locator(".jp-Notebook .jp-Cell").first.click()
        for number in range(1, len(codes) + 1):
            while page.locator(".jp-Notebook .jp-Cell.jp-mod-active.jp-CodeCell").count() == 0:
                page.keyboard.press("Shift+Enter")
            page.keyboard.press("Shift+Enter")
            page.get_by_text(f"[{number}]:", exact=True).first.wait_for(timeout=SLOW)
        page.wait_for_function("document.querySelectorAll('.d22kit-figure svg').length === 3")
        drawn = page.locator(".d22kit-figure svg").all_text_contents()
        for figure, question in zip(drawn, QUESTIONS, strict=True):
            assert question in figure
        assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
        assert (
            page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']").count() == 0
        )
        assert window.abroad == []
        assert wrong == []


QUESTIONS = ("How much do we communicate?", "Does it arrive?", "Does anyone answer?")
