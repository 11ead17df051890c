"""Certificates to HTML: one file that loads nothing, with the JSON object within."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from paceline.certify.plan import EMBEDDED

_FOLDER = Path(__file__).parent


def render(template: str, found: Mapping[str, Any], claim: str, **values: Any) -> str:
    """A certificate's JSON object as the template shows it. All text is escaped: prompts and names are not ours."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "thousands": lambda number: f"{number:,}",
        "millions": lambda number: f"{number / 1e6:,.1f} M",
        "figure": lambda number: f"{number:.3g}",
        "p": _p_value,
        "plain": lambda sampling: ", ".join(f"{name} {value}" for name, value in sampling.items()),
        "tojson_text": lambda text: json.dumps(text, ensure_ascii=False),
    }
    page = environment.from_string((_FOLDER / template).read_text(encoding="utf-8"))
    style = Markup((_FOLDER / "style.css").read_text(encoding="utf-8").rstrip())
    return page.render(c=found, claim=claim, style=style, tag=_tag, embedded=_embedded(found), **values)


def _tag(is_good: bool, good: str, bad: str, kind: str = "bad") -> Markup:
    return Markup('<span class="tag {}">{}</span>').format("good" if is_good else kind, good if is_good else bad)


def _p_value(value: float) -> str:
    return f"{value:.2f}" if value >= 0.01 else f"{value:.1e}"


def _embedded(found: Mapping[str, Any]) -> Markup:
    """The JSON in a script element, which ends at the first "</": so none is left."""
    text = json.dumps(found).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return Markup(f"{EMBEDDED}{text}</script>")
