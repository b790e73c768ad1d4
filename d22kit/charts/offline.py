"""Vega without a network: the scripts once per page, and a figure for each chart."""

from __future__ import annotations

import html
import json
import uuid
from functools import cache
from typing import Any

import altair as alt

from d22kit.charts import theme
from d22kit.errors import ConfigError

__all__ = ["enable", "figure", "script"]

NAME = "d22kit"

START = """
window.d22kit = window.d22kit || {};
window.d22kit.dark = function () {
  const b = document.body, d = b.dataset;
  if (d.jpThemeLight) return d.jpThemeLight === "false";
  if (d.vscodeThemeKind) return d.vscodeThemeKind.includes("dark") || d.vscodeThemeKind === "vscode-high-contrast";
  return matchMedia("(prefers-color-scheme: dark)").matches && !matchMedia("print").matches;
};
window.d22kit.draw = function (element, spec, colours) {
  const options = {actions: false, renderer: "svg", ast: false};
  let text = JSON.stringify(spec);
  if (window.d22kit.dark()) for (const light in colours) text = text.split(light).join(colours[light]);
  const shown = JSON.parse(text);
  if (shown.concat && element.clientWidth < 480) shown.columns = 1;
  element.replaceChildren();
  window.d22kit.embed(element, shown, options).then(function () {
    const svg = element.querySelector("svg");
    svg.style.setProperty("--least", svg.getAttribute("width") > 480 ? "36rem" : "0");
    svg.style.maxWidth = "100%";
    svg.style.height = "auto";
  }).catch(function (error) { element.textContent = String(error); });
};
"""

FIGURE = """<div id="{id}" class="d22kit-figure" role="figure" aria-label="{label}">\
This chart needs the output of d22kit.charts.enable(): run that cell again.</div>
<script>
(function draw(left) {{
  const element = document.getElementById("{id}");
  if (element && window.d22kit) window.d22kit.draw(element, {spec}, {colours});
  else if (left) setTimeout(draw, 100, left - 1);
}})(600);
</script>"""


def enable() -> None:
    """Turn on the theme, and rendering without a network, for this session.

    In a notebook, call it in the first cell: its output carries Vega once, and every chart below draws with
    it, in JupyterLab, in VS Code and in the notebook exported as HTML. Charts follow the page into dark
    mode. Without this call charts keep Altair's own look and renderer, which loads Vega from the web.

    Raises
    ------
    ConfigError
        Where `vl-convert-python`, which carries Vega, is not installed.

    Examples
    --------
    >>> enable()
    >>> alt.theme.active, alt.renderers.active
    ('d22kit', 'd22kit')
    """
    page = script()
    alt.theme.register(NAME, enable=True)(_theme)
    alt.renderers.register(NAME, _render)
    alt.renderers.enable(NAME)
    _publish(page)


@cache
def script() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one `<script>` element, to stand once in a page.

    Raises
    ------
    ConfigError
        Where `vl-convert-python`, which carries them, is not installed.
    """
    try:
        import vl_convert
    except ImportError:
        raise ConfigError(
            "Charts without a network need vl-convert-python, which is not installed. Install it with "
            "pip install 'd22kit[demo]', or show charts by Altair's own renderer, which loads Vega from the web."
        ) from None
    version = alt.SCHEMA_VERSION.removeprefix("v").rpartition(".")[0]
    bundle = vl_convert.javascript_bundle("window.d22kit = {embed: vegaEmbed};", version)
    return f"<script>(function () {{{bundle}}})();{START}</script>"


def figure(spec: dict[str, Any]) -> str:
    """Return an element that draws a Vega-Lite specification, in a page that holds `script()`."""
    return FIGURE.format(
        id=f"d22kit-{uuid.uuid4().hex}",
        label=_attribute(spec.get("description", "chart")),
        spec=_literal(spec),
        colours=_literal(theme.DARK),
    )


def _theme(*, dark: bool = False) -> alt.theme.ThemeConfig:
    return {"config": theme.config(dark=dark)}  # type: ignore[typeddict-item]


def _render(spec: dict[str, Any], **_: Any) -> dict[str, str]:
    return {"text/html": figure(spec), "text/plain": spec.get("description", "chart")}


def _publish(page: str) -> None:
    """Put the scripts into the output of the running notebook cell; elsewhere do nothing."""
    try:
        from IPython import get_ipython
        from IPython.display import publish_display_data
    except ImportError:
        return
    if getattr(get_ipython(), "kernel", None) is not None:
        publish_display_data({"text/html": page, "text/plain": "d22kit charts are on."})  # type: ignore[no-untyped-call]


def _literal(value: Any) -> str:
    """JSON that is safe inside a script element: no label can end it."""
    text = json.dumps(value, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _attribute(text: str) -> str:
    return html.escape(text, quote=True)
