"""What an extract says of itself: where its rows come from, what was chosen and masked, what each column means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from d22kit import __version__
from d22kit.display import number
from d22kit.extracts.batch import Batch
from d22kit.extracts.conditions import DETAIL
from d22kit.extracts.rows import ORDER, Selection
from d22kit.packages import FORMATS, LAYOUT, OUTCOMES
from d22kit.schema import COLUMNS, CREATED, EXTRA, KEY, PARTITION, VERSION, VOCABULARY
from d22kit.store import Store
from d22kit.times import iso

__all__ = ["About", "Tally", "descriptor", "own", "readme", "resource", "table"]

SMALL_CELL = 10
"""Rows under which a combination of words is a small cell, one that may point at a person."""

MOST_WORDS = 100
MOST_CELLS = 50_000

WORDS = (*VOCABULARY, "delivery_status", *OUTCOMES)

MEANINGS = {column.name: column.meaning for column in COLUMNS} | {
    "delivery_state": "What became of it: suppressed, pending, accepted, delivered, read, bounced, failed, unknown.",
    "bounce_category": "Cause of a bounce or failure, by d22kit's rules; null where there is none to explain.",
    "bounce_permanence": "Whether the cause lasts: hard, soft or block; of the message or address, not a person.",
    PARTITION: "UTC date of updated_at.",
}

MEDIA = {
    "parquet": "application/vnd.apache.parquet",
    "csv": "text/csv",
    "arrow": "application/vnd.apache.arrow.file",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


class Tally:
    """Counts rows, and the rows of each combination of words, as batches pass."""

    def __init__(self) -> None:
        self.rows = 0
        self._words: dict[str, pl.Series] = {}
        self._cells: pl.DataFrame | None = None
        self._many = False

    def __call__(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Pass batches on, counted."""
        for batch in batches:
            self._count(batch)
            yield batch

    def words(self) -> dict[str, list[str]]:
        """Return the words present in each vocabulary column, where they are few enough to list."""
        found = {name: words.filter(words != "").sort().to_list() for name, words in self._words.items()}
        return {name: words for name, words in found.items() if 0 < len(words) <= MOST_WORDS}

    def small_cells(self) -> dict[str, Any]:
        """Return how many combinations of words have few rows."""
        if self._cells is None:
            return {"k": SMALL_CELL, "cells": None, "rows": None}
        small = self._cells.filter(pl.col("len") < SMALL_CELL)
        return {"k": SMALL_CELL, "cells": small.height, "rows": int(small["len"].sum())}

    def _count(self, batch: Batch) -> None:
        self.rows += len(batch)
        words = [name for name in WORDS if name in batch.columns]
        if not words:
            return
        cells = batch.count(words)
        for name in words:
            # Of more words than are listed it does not matter which are known.
            seen = pl.concat([self._words.get(name, cells[name].clear()), cells[name]]).unique()
            self._words[name] = seen.head(2 * MOST_WORDS)
        if self._many:
            return
        if self._cells is not None:
            cells = pl.concat([self._cells, cells]).group_by(words).sum()
        self._many = cells.height > MOST_CELLS
        self._cells = None if self._many else cells


@dataclass(frozen=True)
class About:
    """Where an extract comes from: the same for all its files, and free of names and paths of its maker."""

    store: Store
    chosen: Selection
    partition: tuple[str, ...]
    version: int
    committed: datetime
    watermark: datetime | None
    unit: str = "ms"

    @classmethod
    def of(cls, store: Store, chosen: Selection, partition: tuple[str, ...]) -> About:
        """Read a store's version."""
        commit = store.history(1)[0]
        moment = datetime.fromtimestamp(commit["timestamp"] / 1000, UTC)
        return cls(store, chosen, partition, store.table.version(), moment, store.state().watermark)

    def facts(self) -> dict[str, Any]:
        """Return them as JSON values."""
        service, _, lender = self.store.owner.partition(" lender ")
        chosen = self.chosen
        return {
            "layout": LAYOUT,
            "d22kit": __version__,
            "service": service,
            "lender": lender,
            "version": self.version,
            "committed_at": iso(self.committed),
            "complete_up_to": self.watermark and iso(self.watermark),
            "since": chosen.since and iso(chosen.since),
            "until": chosen.until and iso(chosen.until),
            "on": chosen.on,
            "where": chosen.condition.said,
            "where_exact": chosen.condition.exact,
            "columns": list(chosen.columns),
            "zone": "UTC",
            "sorted_by": list(ORDER),
            "classified": chosen.classified,
            "masked": [name for name in (DETAIL, EXTRA) if chosen.masked and name in chosen.columns],
            "unmasked": [] if chosen.masked else chosen.private,
            "masking": chosen.masked,
        }

    def fields(self, words: dict[str, list[str]]) -> list[dict[str, Any]]:
        """Return the table schema's fields; hive columns are in the paths, not in the files."""
        return [self._field(name, words) for name in self.chosen.columns if name not in self.partition]

    def hive(self, words: dict[str, list[str]]) -> list[dict[str, Any]]:
        """Return the fields that the directories' names hold."""
        return [self._field(name, words) for name in self.partition]

    def _field(self, name: str, words: dict[str, list[str]]) -> dict[str, Any]:
        described: dict[str, Any] = {"name": name, **_type(name, self.unit), "description": MEANINGS[name]}
        if name in words:
            described["constraints"] = {"enum": words[name]}
        if name == DETAIL and self.chosen.masked:
            described["description"] += (
                " Masked: addresses, long numbers, names and links became `<email>`, `<n>` and so on."
            )
        if name == EXTRA and self.chosen.masked:
            described["description"] += " Withheld (null), since it may hold anything."
        return described


def _type(name: str, unit: str) -> dict[str, str]:
    if name in ("created_at", "updated_at"):
        length = {"ms": "milliseconds", "us": "microseconds"}[unit]
        return {"type": "datetime", "format": "default", "unit": f"instant in UTC, {length}"}
    if name == PARTITION:
        return {"type": "date", "format": "default", "unit": "day in UTC"}
    return {"type": "string", "unit": "word" if name in WORDS else "text"}


def table(about: About, words: dict[str, list[str]]) -> dict[str, Any]:
    """Return the table schema: every column with its type, unit, meaning and the words present."""
    key = {"primaryKey": [KEY]} if KEY in about.chosen.columns else {}
    return {"fields": about.fields(words), **key, "missingValues": [""]}


def own(about: About, rows: int | None = None, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what goes into a file's own metadata."""
    totals = {} if rows is None else {"rows": rows}
    return {**about.facts(), **totals, **({} if schema is None else {"schema": schema})}


def resource(path: str, suffix: str, digest: str, size: int, rows: int, schema: Any) -> dict[str, Any]:
    """Describe one file."""
    kind = FORMATS[suffix]
    # Frictionless reads CSV as a table; of other files it checks bytes and checksum.
    csv = {"type": "table", "encoding": "utf-8"} | ({"compression": "gz"} if suffix.endswith(".gz") else {})
    return {
        "name": re.sub(r"[^a-z0-9._-]+", "-", path.lower()).strip("-") or "rows",
        "path": path,
        **(csv if kind == "csv" else {"type": "file"}),
        "format": kind,
        "mediatype": MEDIA[kind],
        "hash": f"sha256:{digest}",
        "bytes": size,
        "row_count": rows,
        "schema": schema,
    }


def descriptor(about: About, tally: Tally, resources: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the whole data package."""
    hive = about.hive(tally.words())
    return {
        "profile": "data-package",
        "name": "conversations",
        "title": "Conversation rows of D22",
        "description": " ".join(sentences(about, tally)),
        "created": iso(about.committed),
        "d22kit": {
            **about.facts(),
            "rows": tally.rows,
            "small_cells": tally.small_cells(),
            **({"partition_by": hive} if hive else {}),
        },
        "resources": resources,
    }


def sentences(about: About, tally: Tally) -> Iterator[str]:
    """Say for people what this is, and what to mind."""
    facts = about.facts()
    yield (
        f"{number(tally.rows)} conversation rows of lender {facts['lender']} at {facts['service']}, one per "
        f"public_id in its newest state, from version {about.version} of a store"
        + (f" that is complete up to {facts['complete_up_to']}." if facts["complete_up_to"] else ".")
    )
    if facts["since"] or facts["until"]:
        yield f"{about.chosen.on} from {facts['since'] or 'the first'} until before {facts['until'] or 'the last'}."
    if facts["where"]:
        yield f"Only rows where {_condition(facts['where'])}."
    times = {CREATED, VERSION}.intersection(about.chosen.columns)
    if times:
        yield "Times are instants in UTC."
    yield f"Rows are sorted by {' and '.join(ORDER)}."
    if facts["masked"]:
        yield f"Personal data in {' and '.join(facts['masked'])} is masked or withheld."
    if facts["unmasked"]:
        yield f"{' and '.join(facts['unmasked'])} NOT masked: may hold personal data."
    yield f"A row speaks of one message{'; its exact time makes it unique' if times else ''}."
    small = tally.small_cells()
    if small["cells"] is None and tally.words():
        yield (
            "There are too many combinations of words to count the small ones: pool them before you publish figures."
        )
    elif small["cells"]:
        yield (
            f"{number(small['cells'])} combinations of words have fewer than {SMALL_CELL} rows "
            f"({number(small['rows'])} in all): pool them before figures are published."
        )


def _condition(said: Any) -> str:
    if not isinstance(said, dict):
        return str(said)
    parts = (
        f"{name} is {values if isinstance(values, str) else ' or '.join(map(str, values))}"
        for name, values in said.items()
    )
    return "; ".join(parts)


def readme(package: dict[str, Any], name: str, fields: list[dict[str, Any]]) -> str:
    """Return the directory's README."""
    about = package["d22kit"]
    columns = "\n".join(
        f"| `{field['name']}` | {field['type']} | {field['unit']} | {field['description']} |"
        for field in sorted(fields, key=lambda field: about["columns"].index(field["name"]))
    )
    form = Path(__file__).with_name("readme.md").read_text(encoding="utf-8")
    return form.format(**package | about | {"columns": columns, "name": name} | _opening(about))


def _opening(about: dict[str, Any]) -> dict[str, str]:
    """Return what readers are to be told of hive columns: left to themselves they take codes for numbers."""
    days = {field["name"]: field["name"] == PARTITION for field in about.get("partition_by", ())}
    if not days:
        return dict.fromkeys(("pandas", "polars", "spark", "duckdb"), "")
    arrow = ", ".join(f'("{name}", pyarrow.{"date32" if day else "string"}())' for name, day in days.items())
    polars = ", ".join(f'"{name}": polars.{"Date" if day else "String"}' for name, day in days.items())
    duckdb = ", ".join(f"'{name}': {'DATE' if day else 'VARCHAR'}" for name, day in days.items())
    return {
        "pandas": f', partitioning=pyarrow.dataset.partitioning(pyarrow.schema([{arrow}]), flavor="hive")',
        "polars": f", hive_schema={{{polars}}}",
        "spark": 'spark.conf.set("spark.sql.sources.partitionColumnTypeInference.enabled", "false")\n',
        "duckdb": f", hive_types = {{{duckdb}}}",
    }
