"""How reports print: in 80 columns, in Jupyter, and whatever the words in them are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

import d22kit
from d22kit.display import Facts


class Told(Facts):
    title: ClassVar[str] = "Told"

    def __init__(self, value: str, advice: str = "") -> None:
        self.value, self.sentence = value, advice

    def facts(self) -> Iterator[tuple[str, str]]:
        yield "a label of some size", self.value
        yield "  part", "1"

    def advice(self) -> Iterator[str]:
        if self.sentence:
            yield self.sentence


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Facts]:
    home = tmp_path_factory.mktemp("display")
    with d22kit.simulate(300) as service:
        return {
            "Sync": d22kit.sync(service.endpoint, home / "data", progress=False),
            "Audit": d22kit.audit(service.endpoint, home / "data"),
            "Extract": d22kit.extract(
                home / "rows.parquet", home / "data", where={"platform": ["EMAIL", "SMS"]}
            ),
            "Store": d22kit.status(home / "data"),
            "Vacuum": d22kit.vacuum(home / "data"),
        }


@pytest.mark.parametrize("name", ["Sync", "Audit", "Extract", "Store", "Vacuum"])
def test_a_report_fits_a_terminal_of_80_columns_and_is_shown_when_it_is_named(
    name: str, reports: dict[str, Facts]
) -> None:
    text = str(reports[name])
    assert text.splitlines()[0] == name
    # A word alone, such as a long path, stands whole below its label.
    assert all(len(line) <= 80 or len(line.split()) == 1 for line in text.splitlines())
    assert repr(reports[name]) == text


def test_a_small_extract_has_a_size(reports: dict[str, Facts]) -> None:
    report = reports["Extract"]
    assert isinstance(report, d22kit.ExtractReport)
    assert f"{Path(report.path).stat().st_size / 1000:.1f} kB in 1 file" in str(report)
    assert f"{Path(report.path).stat().st_size / 1000:.1f} kB in 1 file" in report._repr_html_()


def test_long_values_go_on_below_and_long_words_stay_whole() -> None:
    sentence = "some words that go on " * 6
    lines = str(Told(sentence.strip(), sentence.strip())).splitlines()
    assert " ".join(" ".join(lines).split()).count("some words that go on") == 12
    assert max(map(len, lines)) <= 80
    assert str(Told("x" * 70)).splitlines()[1:3] == ["  a label of some size", f"    {'x' * 70}"]


def test_words_of_others_steer_no_terminal_and_no_page() -> None:
    told = Told("one\x1b[31m\rtwo\nthree\u202e", "<script>\x07")
    assert not set("\x1b\r\x07\u202e") & set(str(told))
    assert "one [31m two three" in str(told)
    assert "<script>" not in told._repr_html_()
    assert "👩\u200d👧" in str(Told("👩\u200d👧"))
