"""The command line: every command is one call of the public interface; its options are the parameters' names."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import click

import d22kit
from d22kit.errors import ConfigError, D22kitError, InputError

F = TypeVar("F", bound=Callable[..., Any])
FAILED, USAGE, DIFFERENT, INTERRUPTED = 1, 2, 3, 130


class _Commands(click.Group):
    """Turns our errors into one paragraph and an exit code; a traceback would be a defect."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except D22kitError as error:
            _complain(error)
            context.exit(USAGE if isinstance(error, InputError | ConfigError) else FAILED)
        except KeyboardInterrupt as error:
            _complain(error, "Interrupted.")
            context.exit(INTERRUPTED)


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


def _print(report: Any, as_json: bool) -> None:
    click.echo(json.dumps(dataclasses.asdict(report), default=_plain, indent=2) if as_json else str(report))


def _plain(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else str(value)


def _days(_: click.Context, __: click.Parameter, value: float) -> timedelta:
    return timedelta(days=value)


def _minutes(_: click.Context, __: click.Parameter, value: float) -> timedelta:
    return timedelta(minutes=value)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(d22kit.__version__)
def main() -> None:
    """Fetch the D22 "Conversations" export, keep it, and answer: how much, does it arrive, does anyone answer?

    The service and the credentials come from the environment: D22KIT_ROOT (staging, production or an address)
    and D22KIT_LENDER, D22KIT_EMAIL, D22KIT_PASSWORD, or D22KIT_LENDER_ID, D22KIT_TOKEN.
    """


@main.command()
@click.option("--rows", default=100_000, show_default=True, help="Rows of the simulated lender.")
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
@click.option("--workers", default=4, show_default=True, help="Windows walked at once.")
@click.option(
    "--lookback", default=10.0, show_default=True, callback=_minutes, help="Minutes fetched again next time."
)
@click.option("--progress/--no-progress", default=None, help="Draw a progress bar.  [default: in a terminal]")
@_json
def sync(as_json: bool, **options: Any) -> None:
    """Bring the store up to the service."""
    _print(d22kit.sync(**options), as_json)


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
def quarantine(data: str | None) -> None:
    """List the rows that could not be stored, a JSON object each; they may hold personal data."""
    for row in d22kit.quarantine(data).iter_rows(named=True):
        click.echo(json.dumps(row, ensure_ascii=False))


@main.command()
@_data
@click.option(
    "--keep", default=30.0, show_default=True, callback=_days, help="Days that versions stay readable."
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
@click.option("--where", multiple=True, metavar="COLUMN=VALUE[,VALUE]", help="Keep these values; repeatable.")
@click.option("--columns", help="Columns to write, with commas between.  [default: all]")
@click.option("--version", type=int, help="An earlier version of the store.")
@click.option(
    "--classified/--no-classified", default=True, show_default=True, help="Add delivery state and cause."
)
@click.option("--masked/--no-masked", default=True, show_default=True, help="Hide personal data in texts.")
@click.option("--partition-by", help="Write a directory of Parquet files by this column.")
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@_json
def extract(as_json: bool, where: tuple[str, ...], columns: str | None, **options: Any) -> None:
    """Write rows to PATH for someone without d22kit: .parquet, .csv, .csv.gz, .arrow, .xlsx or a directory."""
    chosen = {name: values.split(",") for name, _, values in (part.partition("=") for part in where)}
    wanted = columns.split(",") if columns else None
    _print(d22kit.extract(where=chosen or None, columns=wanted, **options), as_json)


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
def report(path: str, **options: Any) -> None:
    """Write one HTML page with the answers and their charts to PATH; it needs no network to be read."""
    click.echo(d22kit.report(path, **options))


@main.command()
@click.option("--rows", default=100_000, show_default=True, help="Rows of the simulated lender.")
@click.option("--seed", default=0, show_default=True, help="Another seed is another lender.")
@click.option("--latency", default=0.0, show_default=True, help="Seconds that each page takes.")
@click.option("--port", default=0, show_default=True, help="Port on 127.0.0.1; 0 is a free one.")
def simulate(**options: Any) -> None:
    """Run the simulated service, and print the environment that points d22kit at it."""
    from d22kit.simulator import serve

    serve(**options)


if __name__ == "__main__":
    main()
