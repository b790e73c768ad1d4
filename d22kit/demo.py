"""The whole way in a minute, on a simulated lender: fetch, keep, answer, fetch again, draw."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click
import polars as pl

from d22kit.errors import InputError
from d22kit.loading import load
from d22kit.questions.delivery import delivery
from d22kit.questions.engagement import engagement
from d22kit.questions.volume import volume
from d22kit.reporting import report
from d22kit.reporting.unusual import watch
from d22kit.simulator import ZONE, simulate
from d22kit.syncing import sync

__all__ = ["run"]

_MARK = ".made-by-d22kit-demo"


def run(rows: int = 100_000, output: str = "d22kit-demo") -> Path:
    """Run the demo and return the page it wrote.

    Parameters
    ----------
    rows
        Rows of the simulated lender.
    output
        A directory for the demo's own store and page. One that an earlier demo made is replaced.

    Raises
    ------
    InputError
        Where the directory exists and no demo made it.
    """
    folder = _own_folder(output)
    _heading(f"1. A simulated lender with {rows:,} rows answers on this machine, page by page")
    with simulate(rows) as service:
        data = folder / "data"
        click.echo(sync(service.endpoint, data))
        frame = load(data)
        _heading("2. How much do we communicate?")
        _table(_last_months(volume(frame, by="platform", every="month", tz=ZONE)), _VOLUME)
        _heading("3. Does it arrive?")
        _table(_last_months(delivery(frame, by="platform", every="month", tz=ZONE)), _DELIVERY)
        _heading("4. Does anyone answer?")
        _table(_last_months(engagement(frame, every="month", tz=ZONE)), _ENGAGEMENT)
        _heading("5. Is anything unusual?")
        _unusual(frame)
        _heading("6. A day later, a sync fetches only what is new")
        service.tick(hours=24)
        click.echo(sync(service.endpoint, data))
    page = report(folder / "report.html", data, tz=ZONE)
    _heading("7. The same as a page of charts")
    click.echo(f"Open {page.absolute()} in a browser.")
    _heading("Three things to try next")
    for what, *commands in _next(data):
        click.echo("\n    ".join([f"  {what}", *commands]))
    return page


def _own_folder(output: str) -> Path:
    folder = Path(output)
    if folder.exists():
        if not (folder / _MARK).is_file():
            raise InputError(
                f"{folder.absolute()} exists and was not made by this demo. Name another directory with --output."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / _MARK).touch()
    return folder


def _heading(text: str) -> None:
    click.secho(f"\n{text}", bold=True)


def _last_months(answer: pl.DataFrame) -> pl.DataFrame:
    """Keep the last two complete months: enough to see a change."""
    complete = answer.filter(pl.col("period_state") != "partial")
    months = complete["period_start"].unique().sort().tail(2)
    return complete.filter(pl.col("period_start").is_in(months.implode()))


def _share(name: str) -> pl.Expr:
    parts = [(pl.col(part) * 100).round(1) for part in (name, f"{name}_lo", f"{name}_hi")]
    return pl.format("{}% ({}–{})", *parts)


_MONTH = pl.col("period_start").dt.strftime("%b %Y").alias("month")
_VOLUME = [_MONTH, pl.col("platform", "rows", "outbound", "inbound")]
_DELIVERY = [
    _MONTH,
    pl.col("platform", "attempted"),
    _share("delivered_of_attempted_share").alias("delivered (95%)"),
    _share("bounced_of_attempted_share").alias("bounced (95%)"),
]
_ENGAGEMENT = [
    _MONTH,
    pl.col("platform", "delivered", "inbound"),
    pl.format(
        "{} ({}–{})", *(pl.col(f"inbound_per_100_delivered{e}").round(1) for e in ("", "_lo", "_hi"))
    ).alias("inbound per 100 (95%)"),
]


def _table(answer: pl.DataFrame, columns: list[pl.Expr]) -> None:
    with pl.Config(
        tbl_rows=20,
        tbl_cols=10,
        tbl_width_chars=120,
        tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True,
        tbl_formatting="UTF8_BORDERS_ONLY",
        tbl_cell_numeric_alignment="RIGHT",
        thousands_separator=True,
    ):
        click.echo(answer.select(columns))


def _unusual(frame: pl.DataFrame) -> None:
    """Say in words what left its usual band last."""
    for episode in watch(frame, {"tz": ZONE, "calendar": None}).episodes[:4]:
        label = f"{episode.label[0].upper()}{episode.label[1:]}: {', '.join(episode.groups)}"
        click.echo(f"{episode.when:<15}  {label}, {episode.size}")


def _next(data: Path) -> list[tuple[str, ...]]:
    here = Path(sys.executable).parent
    tools = here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here
    return [
        (
            "Look around in notebooks, from a clone of the repository",
            f"{tools / 'pip'} install -q -e '.[notebooks]'",
            f"{tools / 'jupyter'} lab notebooks/01_first_look.ipynb",
        ),
        (
            "Share an extract that opens without d22kit",
            f"{tools / 'd22kit'} extract conversations.parquet --data {data}",
        ),
        (
            "Use your own account, once D22KIT_ROOT, _LENDER, _EMAIL and _PASSWORD are set",
            f"{tools / 'd22kit'} sync",
        ),
    ]
