"""The condition on an extract's rows: what `where` may be, what it sees, and how the description tells it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl
from polars.io.plugins import register_io_source

from d22kit.errors import InputError
from d22kit.masking import mask
from d22kit.packages import OUTCOMES
from d22kit.schema import CREATED, EXTRA, FRAME, PARTITION, VERSION, VOCABULARY

__all__ = ["DETAIL", "Condition", "Where", "check_columns", "early", "meeting", "read_condition", "unmet"]

Where = pl.Expr | Mapping[str, Any] | None
DETAIL = "delivery_error_detail"

MOST_SAID = 100
"""Values of a condition that the description lists."""

MOST_EXACT = 20_000
"""Characters of a condition's exact form, above which the description has its checksum."""


class Condition(NamedTuple):
    """A condition on rows, as it is judged and as the description tells it.

    Parameters
    ----------
    test
        The expression; None where every row is wanted.
    said
        What the description says.
    exact
        An expression as Polars serializes it, since its text leaves arguments out; None where nothing is left out,
        or values are withheld.
    """

    test: pl.Expr | None = None
    said: Any = None
    exact: str | None = None


def check_columns(names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a column there is not."""
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"Unknown columns: {', '.join(map(repr, unknown))}. There are: {', '.join(known)}.")


def read_condition(where: Where, known: Sequence[str], *, masked: bool) -> Condition:
    """Read a condition.

    Raises
    ------
    InputError
        Where it is no condition on each row by itself.
    """
    if where is None:
        return Condition()
    if isinstance(where, Mapping):
        return _of_mapping(where, known, masked=masked)
    if not isinstance(where, pl.Expr):
        raise InputError(
            f"where is a {type(where).__name__}; give a Polars expression, or values per column: "
            "{'platform': ['EMAIL']}."
        )
    check_columns(where.meta.root_names(), known)
    condition = _resolved(where, known)
    named = sorted(set(condition.meta.root_names()))
    if masked and not {DETAIL, EXTRA}.isdisjoint(named):
        # Texts and numbers that they are compared with may be a person's.
        return Condition(condition, f"a condition on {', '.join(named)} holds (its values are withheld)")
    return Condition(condition, _text(where), _exact(where))


def early(where: pl.Expr) -> bool:
    """Whether a condition can be judged before rows are classified."""
    return set(where.meta.root_names()).isdisjoint(OUTCOMES)


def meeting(rows: pl.LazyFrame, condition: pl.Expr) -> pl.LazyFrame:
    """Keep what meets a condition, which sees the types that `d22kit.scan` gives."""
    words = pl.col([name for name in (*VOCABULARY, *OUTCOMES) if name in rows.collect_schema()])
    return rows.with_columns(words.cast(pl.Categorical)).filter(condition)


def unmet(where: pl.Expr, error: Exception) -> InputError:
    """Return the error of a condition that cannot be judged on some row."""
    # What comes after the bracket are values of rows.
    reason = str(error).partition("\n")[0].partition(": [")[0]
    return InputError(f"where={where} cannot be judged on every row: {reason}.")


def _of_mapping(where: Mapping[str, Any], known: Sequence[str], *, masked: bool) -> Condition:
    times = (CREATED, VERSION, PARTITION)
    if timed := [name for name in where if name in times]:
        raise InputError(
            f"where={dict(where)!r}: {timed[0]} is a time. Give a Polars expression, or since and until."
        )
    check_columns(list(where), [name for name in known if name not in times])
    wanted = {name: _listed(values) for name, values in where.items()}
    if any(not (value is None or isinstance(value, str)) for values in wanted.values() for value in values):
        raise InputError(f"where={dict(where)!r}: values are texts or None, as in {{'platform': ['EMAIL']}}.")
    tests = [
        pl.col(name).cast(pl.String).is_in(pl.Series(values, dtype=pl.String).implode(), nulls_equal=True)
        for name, values in wanted.items()
    ]
    said = {name: _said(name, values, masked=masked) for name, values in wanted.items()}
    return Condition(pl.all_horizontal(tests), said) if tests else Condition()


def _listed(values: Any) -> list[Any]:
    """Return values, each once; those of a set have another order in every process."""
    one = isinstance(values, str) or not hasattr(values, "__iter__")
    found = [values] if one else list(values)
    texts = all(value is None or isinstance(value, str) for value in found)
    return sorted({*found}, key=lambda value: (value is None, value)) if texts else found


def _text(where: pl.Expr) -> str:
    with pl.Config(fmt_table_cell_list_len=MOST_SAID, fmt_str_lengths=MOST_SAID):  # whatever the user has set
        return str(where)


def _exact(where: pl.Expr) -> str:
    exact = where.meta.serialize(format="json")
    return exact if len(exact) <= MOST_EXACT else f"SHA-256 {hashlib.sha256(exact.encode()).hexdigest()}"


def _said(name: str, values: list[str | None], *, masked: bool) -> list[str | None] | str:
    if len(values) > MOST_SAID or (masked and name == EXTRA):
        return f"{len(values)} values"
    return [mask(value) for value in values] if masked and name == DETAIL else values


def _resolved(where: pl.Expr, known: Sequence[str]) -> pl.Expr:
    """Return a condition by its plain columns; refuse one that compares a row with others.

    Rows are read in batches, and Polars hands a source exactly those conditions that judge each row by itself.
    """
    types = {**FRAME, **dict.fromkeys(OUTCOMES, pl.Categorical()), PARTITION: pl.Date()}
    none = pl.DataFrame(schema={name: types[name] for name in known})
    handed: list[pl.Expr | None] = []

    def source(
        columns: list[str] | None, condition: pl.Expr | None, rows: int | None, size: int | None
    ) -> Iterator[pl.DataFrame]:
        handed.append(condition)
        yield none if columns is None else none.select(columns)

    try:
        none.lazy().filter(where).collect()
        if "python_udf()" not in str(where):
            register_io_source(source, schema=none.schema).filter(where).collect()
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"where={where} is no condition on the rows: {reason}.") from error
    if "to_physical()" in str(where):
        raise InputError(
            f"where={where} asks for a category's number, which is another one in every process."
        )
    if not handed or handed[0] is None:
        raise InputError(
            f"where={where} does not judge each row by itself (it compares rows, calls Python, or fails on some "
            "value), and an extract is written in batches. Work it out on a frame first, and give its result as "
            "values: where={'public_id': [...]}."
        )
    return handed[0]
