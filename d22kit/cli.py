"""The command line: every command is one call of the public interface; its options are the parameters' names."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import date, timedelta
from typing import Any, TypeVar

import click

import d22kit
from d22kit.errors import ConfigError, D22kitError, InputError

F = TypeVar("F", bound=Callable[..., Any])
FAILED, USAGE, DIFFERENT, INTERRUPTED, TERMINATED = 1, 2, 3, 130, 143


class _Commands(click.Group):
    """Turns our errors into one paragraph and an exit code; a traceback would be a defect."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except D22kitError as error:
            _complain(error)
            context.exit(USAGE if isinstance(error, InputError | ConfigError) else FAILED)
        except KeyboardInterrupt as error:
            _complain(error, "Interrupted.")
            context.exit(INTERRUPTED)
        except Exception as error:
            if getattr(error, "errno", None) == errno.EPIPE:
                raise
            logging.getLogger("d22kit").debug("unforeseen", exc_info=True)
            _complain(
                error, f"{type(error).__name__}: {error}. d22kit did not foresee this; please report it."
            )
            context.exit(FAILED)


def _complain(error: BaseException, message: str | None = None) -> None:
    notes = getattr(error, "__notes__", [])
    click.echo("\n".join([f"d22kit: {message or error}", *notes]), err=True)


def _data(command: F) -> F:
    return click.option("--data", help="The store's directory or URL.  [default: $D22KIT_DATA, else ./data]")(
        command
    )


def _json(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def _bounds(what: str) -> Callable[[F], F]:
    def add(command: F) -> F:
        for name, edge in (("until", "before"), ("since", "from")):
            text = f"Only rows with {what} {edge} this time (ISO-8601; UTC without an offset)."
            command = click.option(f"--{name}", help=text)(command)
        return command

    return add


def _rows(command: F) -> F:
    kind = click.IntRange(min=0)
    return click.option(
        "--rows", type=kind, default=100_000, show_default=True, help="Rows of the simulated lender."
    )(command)


def _print(report: Any, as_json: bool) -> None:
    click.echo(json.dumps(dataclasses.asdict(report), default=_plain, indent=2) if as_json else str(report))


def _plain(value: object) -> object:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.isoformat() if isinstance(value, date) else str(value)


def _list(_: click.Context, __: click.Parameter, value: str | None) -> list[str] | None:
    return None if value is None else [part.strip() for part in value.split(",")]


def _values(_: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, list[str]]:
    chosen: dict[str, list[str]] = {}
    for value in values:
        name, equals, words = value.partition("=")
        if not equals:
            raise click.BadParameter(f"{value!r} has no '='; write COLUMN=VALUE.", param=parameter)
        chosen.setdefault(name.strip(), []).extend(word.strip() for word in words.split(","))
    return chosen


def _time(unit: str) -> Callable[[click.Context, click.Parameter, float], timedelta]:
    def read(_: click.Context, parameter: click.Parameter, value: float) -> timedelta:
        try:
            return timedelta(**{unit: value})
        except (OverflowError, ValueError):
            raise click.BadParameter(f"{value} {unit} is no length of time.", param=parameter) from None

    return read


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"d22kit: {message}\n"


@contextmanager
def _told() -> Iterator[None]:
    """Let the log speak on stderr: nobody else set it up."""
    log, handler = logging.getLogger("d22kit"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("d22kit: %(message)s"))
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(before)
        log.removeHandler(handler)


def _end(*_: object) -> None:
    # An exit, unlike the signal's default, cleans up.
    sys.exit(TERMINATED)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(d22kit.__version__)
def main() -> None:
    """Fetch the D22 "Conversations" export, keep it, and answer: how much, does it arrive, does anyone answer?

    The service and the credentials come from the environment: D22KIT_ROOT (staging, production or an address)
    and D22KIT_LENDER, D22KIT_EMAIL, D22KIT_PASSWORD, or D22KIT_LENDER_ID, D22KIT_TOKEN.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a difference found (audit, verify), 130 interrupted.
    """
    warnings.formatwarning = _warning
    signal.signal(signal.SIGTERM, _end)


@main.command()
@_rows
@click.option(
    "--output", default="d22kit-demo", show_default=True, help="Directory for the store and the page."
)
def demo(rows: int, output: str) -> None:
    """Show the whole way on a simulated lender: fetch, keep, answer, draw. Needs no account."""
    from d22kit.demo import run

    run(rows, output)


@main.command()
@_data
@_bounds("updated_at")
@click.option("--workers", default=4, show_default=True, help="Windows walked at once, at most.")
@click.option(
    "--lookback",
    default=10.0,
    show_default=True,
    callback=_time("minutes"),
    help="Minutes fetched again next time.",
)
@click.option("--progress/--no-progress", default=None, help="Draw a progress bar.  [default: in a terminal]")
@_json
def sync(as_json: bool, **options: Any) -> None:
    """Bring the store up to the service. Without a bar, a line on stderr says every half minute how far it is."""
    # Polars and delta-rs read it when they are loaded, just below: one heap for all threads lies less idle.
    os.environ.setdefault("_RJEM_MALLOC_CONF", "narenas:1")
    barred = sys.stderr.isatty() if options["progress"] is None else options["progress"]
    with nullcontext() if barred else _told():
        report = d22kit.sync(**options)
    _print(report, as_json)


@main.command()
@_data
@_json
def status(as_json: bool, data: str | None) -> None:
    """Say how the store stands."""
    _print(d22kit.status(data), as_json)


@main.command()
@_data
@_bounds("updated_at")
@click.option(
    "--repair", type=click.Choice(["missing", "all"]), help="Fetch what is missing; all: also remove."
)
@click.option("--max-deletes", default=1000, show_default=True, help="Most rows to remove.")
@_json
def audit(as_json: bool, **options: Any) -> None:
    """Compare the store with the service's own totals."""
    report = d22kit.audit(**options)
    _print(report, as_json)
    if not report.equal:
        sys.exit(DIFFERENT)


@main.command()
@_data
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON array.  [default: a JSON object a line]"
)
def quarantine(as_json: bool, data: str | None) -> None:
    """List the rows that could not be stored, a JSON object each; they may hold personal data."""
    rows = [json.dumps(row, ensure_ascii=False, default=_plain) for row in d22kit.quarantine(data).to_dicts()]
    if as_json:
        click.echo(f"[{', '.join(rows)}]")
    elif rows:
        click.echo("\n".join(rows))


@main.command()
@_data
@click.option(
    "--keep",
    default=30.0,
    show_default=True,
    callback=_time("days"),
    help="Days that versions stay readable.",
)
@_json
def vacuum(as_json: bool, **options: Any) -> None:
    """Delete files that no kept version needs."""
    _print(d22kit.vacuum(**options), as_json)


@main.command()
@click.argument("path")
@_data
@_bounds("the time in --on")
@click.option("--on", default="created_at", show_default=True, help="created_at or updated_at.")
@click.option(
    "--where",
    multiple=True,
    callback=_values,
    metavar="COLUMN=VALUE[,VALUE]",
    help="Keep rows with one of these values; may be given for several columns.",
)
@click.option("--columns", callback=_list, help="Columns to write, with commas between.  [default: all]")
@click.option("--version", type=int, help="An earlier version of the store.")
@click.option(
    "--classified/--no-classified", default=True, show_default=True, help="Add delivery state and cause."
)
@click.option("--masked/--no-masked", default=True, show_default=True, help="Hide personal data in texts.")
@click.option(
    "--partition-by",
    callback=_list,
    help="Write a directory of Parquet files, split by these columns, with commas between.",
)
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@_json
def extract(as_json: bool, where: dict[str, list[str]], **options: Any) -> None:
    """Write rows to PATH for someone without d22kit: .parquet, .csv, .csv.gz, .arrow, .xlsx or a directory."""
    _print(d22kit.extract(where=where or None, **options), as_json)


@main.command()
@click.argument("path")
@_json
def verify(as_json: bool, path: str) -> None:
    """Check that the extract at PATH is whole, and say which snapshot it came from."""
    report = d22kit.verify(path)
    _print(report, as_json)
    if not report.ok:
        sys.exit(DIFFERENT)


@main.command()
@click.argument("path")
@_data
@_bounds("created_at")
@click.option(
    "--tz", default="UTC", show_default=True, help="Time zone of days and weeks, for example Asia/Dubai."
)
@_json
def report(as_json: bool, path: str, **options: Any) -> None:
    """Write one HTML page with the answers and their charts to PATH; it needs no network to be read."""
    made = d22kit.report(path, **options)
    click.echo(json.dumps({"path": str(made)}) if as_json else made)


@main.command()
@_rows
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Another seed is another lender."
)
@click.option(
    "--latency",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Seconds that each page takes.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=0,
    show_default=True,
    help="Port on 127.0.0.1; 0 is a free one.",
)
def simulate(**options: Any) -> None:
    """Run the simulated service, and print the environment that points d22kit at it."""
    from d22kit.simulator import serve

    serve(**options)


if __name__ == "__main__":
    main()
