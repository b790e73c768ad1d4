"""The front door: what it offers, what opening it costs, and which way imports may run."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import d22kit
from d22kit import errors

PACKAGE = Path(d22kit.__file__).parent
HEAVY = {"altair", "deltalake", "httpx", "narwhals", "pandas", "polars", "pyarrow", "vl_convert"}


def loaded_after(statement: str) -> set[str]:
    code = f"import json, sys\n{statement}\nprint(json.dumps([name.split('.')[0] for name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_all_is_sorted_and_everything_in_it_is_there() -> None:
    assert d22kit.__all__ == sorted(d22kit.__all__)
    for name in d22kit.__all__:
        assert getattr(d22kit, name) is not None, name
    assert not set(d22kit.__all__) - set(dir(d22kit))


def test_no_module_hides_a_function_of_its_name() -> None:
    taken = {path.stem for path in PACKAGE.iterdir()} & set(d22kit.__all__)
    assert taken == {"charts", "errors"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = d22kit.nonsense


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not loaded_after("import d22kit") & HEAVY


def test_analysis_imports_no_network() -> None:
    loaded = loaded_after("import d22kit; d22kit.load; d22kit.volume; d22kit.delivery; d22kit.charts")
    assert not loaded & {"httpx", "pandas", "pyspark", "duckdb", "starlette", "uvicorn"}


def test_a_sync_takes_the_memory_of_no_library_it_can_do_without(tmp_path: Path) -> None:
    with d22kit.simulate(rows=50) as service:
        at = service.endpoint
        who = f"root={at.root!r}, lender={at.lender!r}, email={at.email!r}, password={at.password!r}"
        loaded = loaded_after(f"import d22kit; d22kit.sync(d22kit.Endpoint({who}), {str(tmp_path)!r})")
    assert {"deltalake", "httpx", "polars"} <= loaded
    assert not loaded & {"altair", "narwhals", "numpy", "pandas", "pyarrow"}


def test_importing_charts_changes_no_theme_and_no_renderer() -> None:
    code = "import altair as alt; was = alt.theme.active, alt.renderers.active; import d22kit.charts"
    assert loaded_after(f"{code}\nassert was == (alt.theme.active, alt.renderers.active)")


def test_every_error_is_ours_and_has_one_root() -> None:
    assert errors.__all__ == sorted(errors.__all__)
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.D22kitError)
    assert issubclass(errors.InputError, ValueError)


def test_one_module_alone_speaks_http() -> None:
    speaking = []
    for path in PACKAGE.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        names = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
        if "httpx" in names:
            speaking.append(path.name)
    assert speaking == ["endpoint.py"]


def test_modules_stay_short() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {path.name: count for path, count in lines.items() if count > 400} == {}
