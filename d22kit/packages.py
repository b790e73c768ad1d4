"""Extracts as they lie: the data package that describes one, its files, and how to open them again.

An extract is described by a Frictionless data package beside it, `<name>.datapackage.json`: so two extracts in one
directory keep their own, and a directory holds nothing but Parquet files, which is what its readers expect.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Annotated, Any, Literal, TypeVar, cast
from urllib.parse import quote

import msgspec
import polars as pl

from d22kit.config import store_root
from d22kit.display import plain
from d22kit.errors import ExtractError
from d22kit.schema import CREATED, FRAME, PARTITION, VERSION

__all__ = [
    "DESCRIPTOR",
    "FORMATS",
    "FORMULA",
    "OUTCOMES",
    "SCANS",
    "Package",
    "formats_known",
    "hidden",
    "open_extract",
    "shown",
    "steady",
    "turn",
]

DESCRIPTOR = ".datapackage.json"
LAYOUT = 1
"""The layout of extracts. A higher one is refused, never guessed at."""

OUTCOMES = ("delivery_state", "bounce_category", "bounce_permanence")
"""What classifying adds to a row."""

FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".xlsx": "xlsx",
}

TYPES = {**FRAME, **dict.fromkeys(OUTCOMES, pl.Categorical()), PARTITION: pl.Date()}

_UNSEEN = "\\s\\x00-\\x1f\\x7f-\\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"

_SIGN = "[=+\\-@＝＋－＠﹦﹢﹣﹫]"

FORMULA = f"(?:[{_UNSEEN}]*{_SIGN}|[\\t\\r\\n])"
"""How a text begins that a spreadsheet may take for a formula (OWASP, "CSV Injection"), also behind the unseen."""

_CELL = f"([;\\t\\r\\n])('*[{_UNSEEN}--\\t\\r\\n]*{_SIGN})"
"""The same inside a text, behind what may part cells for a spreadsheet that takes commas for text."""

ATTEMPTS, PAUSE = 10, 0.02
"""How often an extract that is replaced while it is read is read again, and the seconds between."""

T = TypeVar("T")

_Text = str | None


class _File(msgspec.Struct):
    path: str
    hash: str
    format: Literal["parquet", "csv", "arrow", "xlsx"]
    bytes: int
    row_count: int


class _Field(msgspec.Struct):
    name: str


class _About(msgspec.Struct):
    service: str
    lender: str
    version: int
    committed_at: str
    complete_up_to: _Text
    since: _Text
    until: _Text
    on: str
    where: Any
    columns: Annotated[list[str], msgspec.Meta(min_length=1)]
    masked: list[str]
    unmasked: list[str]
    rows: int
    partition_by: list[_Field] = []
    beside: dict[str, str] = {}


class _Described(msgspec.Struct):
    """What d22kit needs of a data package; a description is read by others too, and may hold more."""

    d22kit: _About
    resources: Annotated[list[_File], msgspec.Meta(min_length=1)]


def hidden(text: pl.Expr) -> pl.Expr:
    """Put an apostrophe before what a spreadsheet would take for a formula, at the start of a text or inside.

    One is also put before apostrophes that already stand there, so that `shown` brings back every text.
    """
    return text.str.replace(f"^('*{FORMULA})", "'$1").str.replace_all(_CELL, "$1'$2")


def shown(text: pl.Expr) -> pl.Expr:
    """Take away the apostrophes that `hidden` put."""
    return text.str.replace_all(_CELL.replace("('*", "'('*"), "$1$2").str.replace(f"^'('*{FORMULA})", "$1")


def formats_known() -> str:
    """Name the formats in a sentence."""
    return ", ".join(FORMATS) + ", or a directory of Parquet files (no suffix, or a slash at the end)"


@dataclass(frozen=True)
class Package:
    """An extract by its description.

    Parameters
    ----------
    place
        The extract's file or directory: an absolute path or a URL.
    descriptor
        The data package, as JSON values.
    """

    place: str
    descriptor: dict[str, Any]

    @classmethod
    def find(cls, path: str | os.PathLike[str]) -> Package | None:
        """Return the package of the extract at a path; None where no extract of d22kit's is described.

        Raises
        ------
        ExtractError
            Where the description is damaged, or by a newer d22kit.
        """
        place = store_root(path)
        content = read_bytes(place + DESCRIPTOR)
        descriptor = None if content is None else _parse(place + DESCRIPTOR, content)
        return None if descriptor is None else cls(place, descriptor)

    @property
    def about(self) -> dict[str, Any]:
        """Where the rows come from, and what was chosen and masked."""
        return cast(dict[str, Any], self.descriptor["d22kit"])

    @property
    def folder(self) -> bool:
        """Whether the extract is a directory."""
        return "/" in self.descriptor["resources"][0]["path"]

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """Each file's path or URL, with its description; an extract may be renamed with its description."""
        return {
            self.place + part["path"][len(part["path"].partition("/")[0]) :]: part
            for part in self.descriptor["resources"]
        }

    def scan(self) -> pl.LazyFrame:
        """Return a directory's rows; what its paths say is text."""
        hive = dict.fromkeys((field["name"] for field in self.about.get("partition_by", ())), pl.String())
        return pl.scan_parquet(
            list(self.files), glob=False, hive_partitioning=bool(hive), hive_schema=hive or None
        )


def open_extract(path: str | os.PathLike[str], *, read: bool = False) -> pl.LazyFrame | None:
    """Return an extract's rows as a lazy frame, with the columns it has; None where there is no extract.

    A single file opens without its description as well. Times are microseconds, as in `d22kit.scan`. Files that are
    to be `read` at once are held against their checksums before.

    Raises
    ------
    ExtractError
        Where the extract is damaged, or an Excel file: those are for people.
    """
    package, place = Package.find(path), store_root(path)
    ending = suffix(place)
    if package is None and not (ending and _size(place) is not None):
        return None
    if ending == ".xlsx":
        raise ExtractError(
            f"{place} is an Excel extract, which is for people to read. Write a Parquet one from the same version "
            "to work with."
        )
    try:
        if package is not None:
            _check(package, read=read)
        if package is not None and package.folder:
            rows = _typed(package.scan()).select(package.about["columns"])
        else:
            rows = _typed(SCANS[FORMATS[ending]]([place]), text=FORMATS[ending] == "csv")
        rows.collect_schema()
    except (OSError, KeyError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise ExtractError(
            f"The extract {place} cannot be opened: {plain(error)}. Check it with 'd22kit verify'."
        ) from error
    return rows


def steady(
    path: str | os.PathLike[str] | None, act: Callable[[], T], whole: Callable[[T], bool] = lambda _: True
) -> T:
    """Return what an act reads of an extract; where that is replaced meanwhile, it is read again."""
    place = store_root(path)
    for _ in range(ATTEMPTS):
        before = _stamps(place)
        try:
            found = act()
        except ExtractError:
            if _settled(place, before):
                raise
        else:
            if whole(found) or _settled(place, before):
                return found
    return act()


def _settled(place: str, before: list[tuple[int, int]]) -> bool:
    """Whether an extract is the one it was; waits a moment where it is being replaced."""
    if turn(place).exists():
        time.sleep(PAUSE)
        return False
    return _stamps(place) == before


def turn(place: str) -> Path:
    """Return the file that is there while an extract is put in its place."""
    return Path(place).with_name(f".{Path(place).name}.lock")


def _stamps(place: str) -> list[tuple[int, int]]:
    """Tell an extract, rows and description, from the one that replaces it."""
    found: list[tuple[int, int]] = []
    for ending in ("", DESCRIPTOR):
        with suppress(OSError):
            state = Path(place + ending).stat()
            found.append((state.st_ino, state.st_mtime_ns))
    return found


def _check(package: Package, *, read: bool) -> None:
    """Refuse an extract that is not as it was written; a changed one can read as well as a whole one."""
    for file, part in package.files.items():
        size = _size(file)
        if size is None:
            raise _damaged(package, f"{file} is missing")
        if size != part["bytes"]:
            raise _damaged(
                package, f"{file} has {size:,} bytes and had {part['bytes']:,} when it was written"
            )
        if read and "://" not in file and f"sha256:{checksum(file)[0]}" != part["hash"]:
            raise _damaged(package, f"{file} has changed since it was written")


def _size(place: str) -> int | None:
    """Return the bytes of a file or object; None where there is none."""
    if "://" in place:
        system, name = storage(place)
        return cast(int | None, system.get_file_info(name).size)
    return Path(place).stat().st_size if Path(place).is_file() else None


def _damaged(package: Package, reason: str) -> ExtractError:
    return ExtractError(f"The extract {package.place} is damaged: {reason}. Ask for it again.")


def suffix(place: str) -> str:
    """Return the known suffix that a name ends with, or nothing."""
    return next((known for known in FORMATS if place.lower().endswith(known)), "")


def checksum(place: str) -> tuple[str, int]:
    """Return a file's SHA-256 and its bytes."""
    digest, size = hashlib.sha256(), 0
    with open_bytes(place) as file:
        while part := file.read(1 << 20):
            digest.update(part)
            size += len(part)
    return digest.hexdigest(), size


def open_bytes(place: str) -> IO[bytes]:
    """Open a file, or an object, for reading."""
    if "://" in place:
        system, name = storage(place)
        return cast(IO[bytes], system.open_input_stream(name, compression=None))
    return Path(place).open("rb")


def read_bytes(place: str) -> bytes | None:
    """Return what a file, or an object, holds; None where there is none.

    Raises
    ------
    ExtractError
        Where the place cannot be reached.
    """
    try:
        with open_bytes(place) as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ExtractError(f"{place} cannot be read: {error.strerror or error}.") from error


def storage(url: str) -> tuple[Any, str]:
    """Return the object storage of a URL, with the credentials of the environment, and the path in it.

    Raises
    ------
    ExtractError
        Where the URL is of no known kind.
    """
    from pyarrow import ArrowException
    from pyarrow.fs import FileSystem

    scheme, _, name = url.partition("://")
    try:
        # Names may hold what an address may not, blanks and percent signs for two.
        system, path = FileSystem.from_uri(f"{scheme}://{quote(name, safe='/:@')}")
    except ArrowException as error:
        raise ExtractError(f"{url} is no object storage that can be reached: {error}") from error
    return system, path


def _parse(name: str, content: bytes) -> dict[str, Any] | None:
    try:
        descriptor: dict[str, Any] = json.loads(content)
        if "d22kit" not in descriptor:
            return None
        layout = msgspec.convert(descriptor["d22kit"]["layout"], int)
        if layout <= LAYOUT:
            msgspec.convert(descriptor, _Described)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ExtractError(
            f"{name} is damaged: it is no data package any more ({error}). Ask for the extract again."
        ) from error
    if layout > LAYOUT:
        raise ExtractError(
            f"{name} has layout {layout}; this d22kit knows up to {LAYOUT}. Upgrade it: pip install -U d22kit."
        )
    return descriptor


def _typed(frame: pl.LazyFrame, *, text: bool = False) -> pl.LazyFrame:
    """Give the columns their types of `schema.FRAME`; CSV is text throughout."""
    found = frame.collect_schema()
    if PARTITION in found and found[PARTITION] == pl.String():
        frame = frame.with_columns(pl.col(PARTITION).str.to_date())
    if text:
        times = pl.col([name for name in found if name in (CREATED, VERSION)])
        words = pl.col([name for name in found if not TYPES[name].is_temporal()])
        frame = frame.with_columns(shown(words), times.str.to_datetime(time_unit="us", time_zone="UTC"))
    return frame.cast({name: TYPES[name] for name in found})


def _scan_csv(places: list[str]) -> pl.LazyFrame:
    (place,) = places
    # Polars unpacks files and bytes, and no objects of object storage.
    packed = "://" in place and place.lower().endswith(".gz")
    return pl.scan_csv(read_bytes(place) or b"" if packed else place, infer_schema=False)


SCANS: dict[str, Callable[[list[str]], pl.LazyFrame]] = {
    "csv": _scan_csv,
    "parquet": partial(pl.scan_parquet, glob=False, hive_partitioning=False),
    "arrow": partial(pl.scan_ipc, glob=False, hive_partitioning=False),
}
