"""How reports print: the same facts as aligned text in a terminal and as a table in Jupyter."""

from __future__ import annotations

import html
import re
import textwrap
import unicodedata
from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

__all__ = ["Facts", "number", "plain", "size"]

COLUMNS = 80
"""Of a terminal; a longer value goes on below, at blanks, and a longer word stands whole, to be copied."""

UNSEEN, JOINERS = ("Cc", "Cf", "Zl", "Zp"), "\u200c\u200d"
"""Characters that could steer a terminal, and those among them that letters and emoji need."""

LONGEST_QUOTE = 300
_NOISE = re.compile(r"\x1b\[[\d;]*m|↳")


def number(value: int) -> str:
    """Return a count with its thousands apart.

    Examples
    --------
    >>> number(1234567)
    '1,234,567'
    """
    return f"{value:,}"


def size(count: int) -> str:
    """Return a number of bytes in the unit that tells it.

    Examples
    --------
    >>> size(812), size(21_368), size(999_999), size(1_240_000), size(999_950_000)
    ('812 bytes', '21.4 kB', '1.0 MB', '1.2 MB', '1.0 GB')
    """
    if count < 1000:
        return f"{count} byte{'s' * (count != 1)}"
    scaled, unit = count / 1e3, "kB"
    for unit in ("kB", "MB", "GB"):
        if round(scaled, 1) < 1000 or unit == "GB":
            break
        scaled /= 1000
    return f"{scaled:,.1f} {unit}"


def plain(error: Exception) -> str:
    """Return what a library says of an error, without its colours and lines, and not all of it."""
    text = " ".join(_NOISE.sub("", str(error)).split()).rstrip(".")
    return text if len(text) <= LONGEST_QUOTE else text[:LONGEST_QUOTE] + "…"


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
        width = max(len(label) for label, _ in rows) + 2
        lines = [line for label, value in rows for line in _hung(f"  {label:<{width}}", value)]
        return "\n".join(
            [self.title, *lines, *(line for text in self.advice() for line in _hung("  ! ", text))]
        )

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        # Escaped whole: a lender's own words may stand in any value.
        rows = "".join(
            f"<tr><th style='text-align:left;padding-left:{1 + label.count('  ')}em'>{html.escape(label.strip())}"
            f"</th><td style='text-align:left'>{html.escape(value)}</td></tr>"
            for label, value in self.facts()
        )
        advice = "".join(f"<p><strong>!</strong> {html.escape(sentence)}</p>" for sentence in self.advice())
        caption = f"<caption style='text-align:left;font-weight:bold'>{html.escape(self.title)}</caption>"
        return f"<table>{caption}{rows}</table>{advice}"


def _hung(lead: str, text: str) -> list[str]:
    """Return a text behind its lead, in lines; a lender's own words bring no control characters to a terminal."""
    plain = "".join(" " if unicodedata.category(c) in UNSEEN and c not in JOINERS else c for c in text)
    lines = textwrap.wrap(plain, COLUMNS - len(lead), break_long_words=False, break_on_hyphens=False) or [""]
    if any(len(lead) + len(line) > COLUMNS for line in lines):
        below = textwrap.wrap(plain, COLUMNS - 4, break_long_words=False, break_on_hyphens=False)
        return [lead.rstrip(), *(f"    {line}" for line in below)]
    return [lead + lines[0], *(" " * len(lead) + line for line in lines[1:])]
