"""Extracts: files that anyone can open, that explain themselves, and that can be traced to their snapshot."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pyarrow as pa

from d22kit.config import store_root
from d22kit.display import Facts, number, size
from d22kit.errors import ExtractError, InputError
from d22kit.extracts.checking import digest, problems
from d22kit.extracts.conditions import Where, check_columns
from d22kit.extracts.describing import About, Tally, descriptor, own, readme, resource, table
from d22kit.extracts.formats import WRITERS, FinerTimesError, write_directory
from d22kit.extracts.places import README, SCHEMA, Target
from d22kit.extracts.rows import Selection, ahead, batches
from d22kit.packages import DESCRIPTOR, FORMATS, Package, checksum, hidden, steady
from d22kit.schema import CREATED, PARTITION, VERSION, listed
from d22kit.store import Store
from d22kit.times import TimeLike

__all__ = ["ExtractReport", "extract", "verify"]


@dataclass(frozen=True, repr=False)
class ExtractReport(Facts):
    """What an extract holds and where it comes from.

    Parameters
    ----------
    path
        Its file or directory: an absolute path or a URL.
    rows, bytes, files
        Rows, bytes and data files.
    about
        What the extract says of itself: `service`, `lender`, `version`, `complete_up_to`, `since`, `until`,
        `where`, `masked` and more.
    sha256
        The checksum of each file.
    problems
        What `verify` found wrong; empty where all is well.
    """

    path: str
    rows: int
    bytes: int
    files: int
    about: dict[str, Any]
    sha256: dict[str, str]
    problems: tuple[str, ...] = ()

    title: ClassVar[str] = "Extract"

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.problems

    @property
    def version(self) -> int:
        """The store's version that the rows come from."""
        return int(self.about["version"])

    def facts(self) -> Iterator[tuple[str, str]]:
        """Give the report line by line."""
        about = self.about
        yield "extract", self.path
        yield "rows", number(self.rows)
        each = f", {self.bytes / self.rows:.1f} bytes a row" if self.rows else ""
        yield "size", f"{size(self.bytes)} in {number(self.files)} file{'s' * (self.files != 1)}{each}"
        yield "from", f"{about['service']} lender {about['lender']}"
        yield "snapshot", f"version {about['version']}, committed {about['committed_at']}"
        yield "complete up to", about["complete_up_to"] or "not yet complete"
        if about["since"] or about["until"]:
            yield (
                about["on"],
                f"from {about['since'] or 'the first'} until before {about['until'] or 'the last'}",
            )
        if about["where"]:
            yield "where", str(about["where"])
        yield "masked", ", ".join(about["masked"]) or "nothing"
        if self.files == 1:
            yield "SHA-256", next(iter(self.sha256.values()))

    def advice(self) -> Iterator[str]:
        """Say what to mind."""
        yield from self.problems
        if self.rows == 0 and self.ok:
            yield "No row met the conditions: the extract has columns and no rows."
        if self.about["unmasked"]:
            yield f"{', '.join(self.about['unmasked'])} not masked: it may hold personal data."


def extract(
    path: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    since: TimeLike | None = None,
    until: TimeLike | None = None,
    on: str = CREATED,
    where: Where = None,
    columns: Sequence[str] | None = None,
    version: int | None = None,
    classified: bool = True,
    masked: bool = True,
    partition_by: str | Sequence[str] | None = None,
    overwrite: bool = False,
) -> ExtractReport:
    """Write rows of a store for people who have no d22kit, with a description that travels with them.

    The same version and choice give the same bytes in Parquet, CSV and Arrow. Memory does not grow with the rows.
    It appears whole or not at all.

    Parameters
    ----------
    path
        Where to. The suffix says the format: `.parquet`, `.csv`, `.csv.gz`, `.arrow`, `.feather`, `.xlsx` (at most
        1,048,575 rows); none, or a slash at the end, is a directory of Parquet files. May be a URL (`s3://...`).
    data
        The store's directory or URL; None is `$D22KIT_DATA`, else `data` in the working directory.
    since, until, on
        Keep rows whose column `on` (`"created_at"` or `"updated_at"`) lies in `[since, until)`; UTC without an offset.
    where
        A Polars expression on each row, or values per column: `{"platform": ["EMAIL", "SMS"]}`.
    columns
        The columns, in order; None is all. `updated_date` comes only when named, here or in `partition_by`.
    version
        A version of the store; None is the newest.
    classified
        Add `delivery_state`, `bounce_category` and `bounce_permanence`.
    masked
        Hide personal data in `delivery_error_detail` and withhold `extra`. False is written into the description.
    partition_by
        Columns by which a directory is split, hive-style.
    overwrite
        Replace the extract that is there.

    Returns
    -------
    ExtractReport

    Raises
    ------
    ExtractError
        Where something is there already, or the extract cannot be written; nothing is left behind.
    InputError
        Where an argument is wrong: a suffix, a column, a range.
    StoreNotFoundError, VersionNotFoundError
        Where there is no such store or version.

    Examples
    --------
    >>> import d22kit, tempfile
    >>> with d22kit.simulate(rows=2_000) as service, tempfile.TemporaryDirectory() as data:
    ...     _ = d22kit.sync(service.endpoint, data, progress=False)
    ...     made = d22kit.extract(f"{data}/email.parquet", data, where={"platform": ["EMAIL"]})
    ...     d22kit.verify(made.path).ok
    True
    """
    for name, value in (("classified", classified), ("masked", masked), ("overwrite", overwrite)):
        if not isinstance(value, bool):
            raise InputError(f"{name}={value!r} is neither True nor False.")
    by = () if partition_by is None else tuple(listed("partition_by", partition_by))
    target = Target.of(path, by, overwrite=overwrite)
    chosen = Selection.of(since, until, on, where, columns, classified=classified, masked=masked)
    if columns is None and PARTITION in by:
        chosen = replace(chosen, columns=(*chosen.columns, PARTITION))
    _check_partition(by, chosen.columns)
    try:
        target.check()
        about = About.of(Store.open(data).at(version), chosen, by)
        try:
            report = _write(target, about)
        except FinerTimesError:
            report = _write(target, replace(about, unit="us"))
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ExtractError(
            f"The extract {target.place} could not be written: {reason}. Nothing was left behind. Mend that, or name "
            "another place."
        ) from error
    if not report.rows:
        warnings.warn(f"No row met the conditions: {target.place} has columns and no rows.", stacklevel=2)
    return report


def verify(path: str | os.PathLike[str]) -> ExtractReport:
    """Check that an extract is whole and as it was written, and say which snapshot it came from.

    Parameters
    ----------
    path
        The extract: a file or directory, local or a URL. Its description must lie beside it.

    Returns
    -------
    ExtractReport
        `ok`, and `problems` where a file is missing, changed, added or holds another number of rows.

    Raises
    ------
    ExtractError
        Where there is no extract, or its description is missing or damaged.
    """

    def check() -> ExtractReport:
        package = Package.find(path)
        if package is None:
            raise ExtractError(
                f"There is no description of an extract at {store_root(path)}{DESCRIPTOR}, so nothing can be checked. "
                "Ask for it: it was written with the extract."
            )
        return replace(_report(package), problems=tuple(problems(package)))

    return steady(path, check, whole=lambda report: report.ok)


def _check_partition(by: Sequence[str], columns: Sequence[str]) -> None:
    check_columns(by, columns)
    if len(set(by)) < len(by):
        raise InputError(f"partition_by={list(by)} names a column twice; name each one once.")
    if fine := [name for name in by if name in (CREATED, VERSION)]:
        raise InputError(
            f"partition_by={fine[0]!r} would give each instant a directory; give 'updated_date'."
        )
    if set(by) == set(columns):
        raise InputError(f"partition_by={list(by)} leaves no column for the files; name more columns.")


def _write(target: Target, about: About) -> ExtractReport:
    tally = Tally()

    def said(done: bool) -> dict[str, Any]:
        return own(about, tally.rows, table(about, tally.words())) if done else own(about)

    with target.room() as room:
        coming = ahead(tally(batches(about.store, about.chosen)))
        if target.folder:
            schema = table(about, {})
            parts = write_directory(
                room / target.name, coming, about.unit, about.partition, lambda rows: own(about, rows, schema)
            )
            parts = {f"{target.name}/{name}": rows for name, rows in parts.items()}
        else:
            WRITERS[FORMATS[target.suffix]](room / target.name, coming, about.unit, said)
            parts = {target.name: tally.rows}
        package = _describe(room, target, about, tally, parts)
        target.publish(room)
    return _report(Package(target.place, package))


def _describe(
    room: Path, target: Target, about: About, tally: Tally, parts: dict[str, int]
) -> dict[str, Any]:
    """Write the description into the room, and return the data package."""
    words = tally.words()
    if FORMATS.get(target.suffix) == "csv":
        words = {
            name: pl.DataFrame({"": found}, {"": pl.String}).select(hidden(pl.all())).to_series().to_list()
            for name, found in words.items()
        }
    schema = table(about, words)
    shared = target.name + SCHEMA if target.folder else schema
    files = [
        resource(name, target.suffix or ".parquet", *checksum(str(room / name)), rows, shared)
        for name, rows in parts.items()
    ]
    package = descriptor(about, tally, files)
    if target.folder:
        fields = [*about.hive({}), *schema["fields"]]
        beside = {SCHEMA: _json(schema), README: readme(package, target.name, fields)}
        for ending, text in beside.items():
            _put(room / (target.name + ending), text)
        package["d22kit"]["beside"] = {ending: digest(text.encode()) for ending, text in beside.items()}
    _put(room / (target.name + DESCRIPTOR), _json(package))
    return package


def _report(package: Package) -> ExtractReport:
    files = package.descriptor["resources"]
    return ExtractReport(
        path=package.place,
        rows=package.about["rows"],
        bytes=sum(part["bytes"] for part in files),
        files=len(files),
        about=package.about,
        sha256={part["path"]: part["hash"].removeprefix("sha256:") for part in files},
    )


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _put(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
