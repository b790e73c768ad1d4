"""What readers see, in a real Chromium without a network: the same picture everywhere, and nothing on the console."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
from gallery import DRAWN, lenders
from nbclient import NotebookClient

from d22kit import charts
from d22kit.charts import offline

playwright = pytest.importorskip(
    "playwright.sync_api", reason="browser tests need playwright: pip install playwright"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="browser tests need Chromium: apt-get install chromium")

OFFLINE = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--proxy-server=127.0.0.1:9",
    "--proxy-bypass-list=127.0.0.1;localhost",
)  # fmt: skip
NAMES = (
    "volume", "volume_month", "heatmap", "share", "delivery_week", "engagement", "bounces", "time_to_last_update",
    "contact_hours", "contact_hours_day", "compare", "anomalies_rate", "overview",
)  # fmt: skip
CELLS = (
    "import d22kit\nfrom d22kit.simulator import generate\nd22kit.charts.enable()",
    "generate(2000, seed=1).pipe(d22kit.volume, by='platform', tz='Asia/Dubai').pipe(d22kit.charts.volume)",
)
IDLE = "text=/[|] Idle/"
SLOW = 180_000
BARS = "g.mark-rect.role-mark path[fill^='#']"  # the hatched ground is a gradient
INSIDE = """([figure, css]) => [...document.querySelectorAll(".d22kit-figure")[figure].querySelectorAll(css)]
    .map(element => element.outerHTML).join("")"""
DONE = "[...document.querySelectorAll('.d22kit-figure')].every(figure => figure.querySelector('svg'))"


class Window:
    """A page, all it said on the console and all it asked of the network."""

    def __init__(self, page: Any) -> None:
        self.page, self.said, self.asked = page, [], []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def open(self, url: str) -> Any:
        self.page.goto(url)
        self.page.wait_for_selector(".d22kit-figure svg")
        self.page.wait_for_function(DONE)
        return self.page

    @property
    def abroad(self) -> list[str]:
        near = ("file:", "data:", "blob:", "http://127.0.0.1", "ws://127.0.0.1")
        return [url for url in self.asked if not url.startswith(near)]


@contextmanager
def changed(page: Any, name: str | None, css: str) -> Iterator[None]:
    """Wait until what is done inside has changed these elements of a figure, the first where none is named."""
    place = [NAMES.index(name) if name else 0, css]
    before = page.evaluate(INSIDE, place)
    yield
    page.wait_for_function(f"([place, before]) => ({INSIDE})(place) !== before", arg=[place, before])


@contextmanager
def browser(zone: str = "UTC", **options: Any) -> Iterator[Window]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=CHROMIUM, args=[*OFFLINE], env={**os.environ, "TZ": zone}
        )
        try:
            context = chromium.new_context(viewport={"width": 1280, "height": 900}, **options)
            context.set_default_timeout(SLOW)  # machines that do much else are slow, and right
            yield Window(context.new_page())
        finally:
            chromium.close()


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of figures, as a report or a notebook holds them."""
    charts.enable()
    figures = [offline.figure(DRAWN[name](lenders()["simulator"]).to_dict()) for name in NAMES]
    weird = [
        offline.figure(DRAWN[name](lenders()["weird"]).to_dict())
        for name in ("volume", "time_to_last_update")
    ]
    page = tmp_path_factory.mktemp("gallery") / "page.html"
    page.write_text(
        "\n".join(["<!doctype html><meta charset=utf-8>", offline.script(), *figures, *weird]), "utf-8"
    )
    return page.as_uri()


def pictures(page: Any) -> list[str]:
    """The SVG of each figure; names of clips and gradients count up as figures finish."""
    drawn = page.evaluate("[...document.querySelectorAll('.d22kit-figure svg')].map(svg => svg.outerHTML)")
    return [re.sub(r"(clip|gradient_?)\d+", r"\1", svg) for svg in drawn]


def test_the_same_picture_in_every_zone_silent_and_without_a_network(gallery: str) -> None:
    seen = {}
    for zone in ("UTC", "Asia/Dubai", "America/New_York"):
        with browser(zone) as window:
            page = window.open(gallery)
            assert page.evaluate("Intl.DateTimeFormat().resolvedOptions().timeZone") == zone
            seen[zone] = pictures(page)
            assert window.said == []
            assert window.abroad == []
    assert len(seen["UTC"]) == len(NAMES) + 2
    assert seen["UTC"] == seen["Asia/Dubai"] == seen["America/New_York"]


def test_readers_can_point_click_and_zoom(gallery: str) -> None:
    with browser() as window:
        page = window.open(gallery)
        volume = page.locator(".d22kit-figure").nth(NAMES.index("volume_month"))
        bars = volume.locator(BARS)
        before = bars.count()
        bars.first.hover()
        assert "month" in page.locator("#vg-tooltip-element").inner_text()
        with changed(page, "volume_month", BARS):
            volume.locator("g.role-legend-symbol path").first.click()
        assert 0 < bars.count() < before
        board = page.locator(".d22kit-figure").nth(NAMES.index("overview")).locator("svg")
        board.scroll_into_view_if_needed()
        box = board.bounding_box()
        scale = box["width"] / float(board.get_attribute("width"))
        with changed(page, "overview", "g.role-axis-label"):
            page.mouse.move(box["x"] + 300 * scale, box["y"] + 250 * scale)
            page.mouse.down()
            page.mouse.move(box["x"] + 500 * scale, box["y"] + 255 * scale, steps=5)
            page.mouse.up()
        assert window.said == []


def test_a_click_on_the_legend_filters_the_lines_of_many_groups(tmp_path: Path) -> None:
    charts.enable()
    page_of_one = tmp_path / "page.html"
    figure = offline.figure(DRAWN["volume"](lenders()["huge"]).to_dict())
    page_of_one.write_text(f"<!doctype html><meta charset=utf-8>{offline.script()}{figure}", "utf-8")
    with browser() as window:
        page = window.open(page_of_one.as_uri())
        lines = page.locator("g.mark-line.role-mark path")
        before = lines.count()
        with changed(page, None, "g.mark-line.role-mark"):
            page.locator("g.role-legend-label text").first.click(force=True)
        assert 0 < lines.count() < before
        assert window.said == []


def test_marks_are_not_read_aloud_one_by_one(gallery: str) -> None:
    with browser() as window:
        page = window.open(gallery)
        assert page.locator("g.role-mark [aria-label]").count() == 0
        names = page.locator(".d22kit-figure").evaluate_all("all => all.map(figure => figure.ariaLabel)")
        assert all("?" in name for name in names)


def test_markup_from_the_data_is_text(gallery: str) -> None:
    with browser() as window:
        page = window.open(gallery)
        said = page.locator(".d22kit-figure").nth(len(NAMES) + 1).locator("svg").text_content()
        assert "<script>alert(1)<" in said
        assert "<b>bold<" in said
        names = page.locator(".d22kit-figure").nth(len(NAMES)).locator("g.role-legend-label text")
        assert "undefined" not in names.all_text_contents()
        assert (
            page.evaluate("document.querySelectorAll('.d22kit-figure script, .d22kit-figure b').length") == 0
        )


def test_a_dark_page_has_dark_charts_and_a_phone_no_overflow(gallery: str) -> None:
    with browser(color_scheme="dark") as window:
        page = window.open(gallery)
        drawn = " ".join(pictures(page))
        assert charts.theme.DARK[charts.theme.PAPER] in drawn
        assert charts.theme.INK not in drawn
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def _book() -> Any:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return book


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("notebook") / "charts.ipynb"
    book = _book()
    nbformat.write(NotebookClient(book, kernel_name="python3").execute(), path)
    return path


# The kernel and the server warn about their own sockets and settings, in processes of their own.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_notebook_exported_as_html_draws_without_a_network(notebook: Path) -> None:
    import nbconvert

    page, _ = nbconvert.HTMLExporter().from_filename(str(notebook))
    path = notebook.with_suffix(".html")
    path.write_text(page, "utf-8")
    with browser() as window:
        window.open(path.as_uri())
        ours = [url for url in window.abroad if not url.startswith("https://cdnjs.cloudflare.com/ajax/libs/")]
        assert ours == []  # nbconvert's own template asks for require.js and MathJax
        assert not [text for text in window.said if "Failed to load resource" not in text]


@contextmanager
def jupyterlab(root: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1",
        f"--ServerApp.root_dir={root}", "--IdentityProvider.token=", "--ServerApp.password=",
        "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    home = {
        name: str(root / name.lower())
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    }
    log = (root / "server.log").open("w")
    server = subprocess.Popen(command, env={**os.environ, **home}, stdout=log, stderr=log)
    try:
        for _ in range(300):
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, (root / "server.log").read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(SLOW // 1000)
        log.close()


def test_jupyterlab_draws_without_a_network(tmp_path: Path) -> None:
    book = _book()
    nbformat.write(book, tmp_path / "charts.ipynb")
    with jupyterlab(tmp_path) as url, browser("Asia/Dubai") as window:
        page = window.page
        page.goto(f"{url}/lab/tree/charts.ipynb?reset")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=SLOW)
        page.wait_for_selector(IDLE, timeout=SLOW)  # a cell sent earlier may be lost
        page.locator(".jp-Notebook .jp-CodeCell").first.click()
        for _ in CELLS:
            page.keyboard.press("Shift+Enter")
        page.wait_for_selector(".d22kit-figure svg", timeout=SLOW)
        assert "How much do we communicate?" in page.locator(".d22kit-figure svg").text_content()
        assert window.abroad == []
        assert not [text for text in window.said if "d22kit" in text or "vega" in text.lower()]
