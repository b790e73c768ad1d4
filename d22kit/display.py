"""How reports print: the same facts as aligned text in a terminal and as a table in Jupyter."""

from __future__ import annotations

import html
from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

__all__ = ["Facts", "number"]


def number(value: int) -> str:
    """Return a count with its thousands apart.

    Examples
    --------
    >>> number(1234567)
    '1,234,567'
    """
    return f"{value:,}"


class Facts:
    """A report that prints its facts line by line, and below them what to do about it."""

    title: ClassVar[str]

    @abstractmethod
    def facts(self) -> Iterator[tuple[str, str]]:
        """Give label and value, line by line; a label that begins with blanks is part of the one above."""

    def advice(self) -> Iterator[str]:
        """Give one sentence for each thing to look at."""
        yield from ()

    def __str__(self) -> str:
        rows = list(self.facts())
        width = max(len(label) for label, _ in rows)
        lines = [self.title, *(f"  {label:<{width}}  {value}" for label, value in rows)]
        return "\n".join([*lines, *(f"  ! {sentence}" for sentence in self.advice())])

    def _repr_html_(self) -> str:
        # Escaped whole: a lender's own words may stand in any value.
        rows = "".join(
            f"<tr><th style='text-align:left;padding-left:{1 + label.count('  ')}em'>{html.escape(label.strip())}"
            f"</th><td style='text-align:left'>{html.escape(value)}</td></tr>"
            for label, value in self.facts()
        )
        advice = "".join(f"<p><strong>!</strong> {html.escape(sentence)}</p>" for sentence in self.advice())
        return f"<table><caption>{html.escape(self.title)}</caption>{rows}</table>{advice}"
