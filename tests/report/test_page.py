"""The page as text: complete, self-contained, and escaped whatever the tokens say."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from paceline.report import page, uncertain_spans
from paceline.report.charts import Chart, ticks, timeline_chart
from paceline.testing import ScriptedDrafter
from report.support import decoded, saying

HOSTILE = [
    "</script>",
    "<script>alert(1)</script>",
    "<!--",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}",
    "&amp;",
    "\x00\x1b",
]


class Reader(HTMLParser):
    """What a browser would make of the page: tags, texts of tokens, and the data of the scripts."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[list[dict]] = []
        self._script: dict[str, str | None] | None = None
        self._text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self._script, self._text = dict(attrs), ""

    def handle_data(self, data) -> None:
        self._text += data

    def handle_endtag(self, tag) -> None:
        if tag == "script" and self._script is not None and self._script.get("type") == "application/json":
            self.data.append(json.loads(self._text))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_hostile_tokens_stay_text() -> None:
    html = page(saying(HOSTILE))
    read = Reader(html)
    assert len(read.of("script")) == 2
    assert not read.of("img")
    assert [datum["text"] for datum in read.data[0]] == [*HOSTILE[:-1], "␀␛"]
    assert "{{ 7 * 7 }}" in html
    assert "alert(1)</script>" not in html.replace("&lt;/script&gt;", "")


def test_the_page_asks_for_nothing_from_anywhere() -> None:
    html = page(decoded(lambda model: [ScriptedDrafter.perfect(model)], max_tokens=20))
    read = Reader(html)
    for _, attributes in read.tags:
        for name in ("src", "href", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith("#") or value == "data:,"
    assert not re.search(r"@import|url\(|https?:", html)


def test_every_token_is_on_the_page_once_and_in_order() -> None:
    output = decoded(lambda model: [ScriptedDrafter.adversarial(model, 1)], max_tokens=33, temperature=1.0, logprobs=5)
    read = Reader(page([output, output]))
    places = [a["data-i"] for a in read.of("span") if "data-i" in a]
    assert places == [str(i) for i in range(33)] * 2
    first, second = read.data
    assert first == second
    assert [datum["id"] for datum in first] == list(output.token_ids)
    assert all(len(datum["top"]) == 5 for datum in first)
    assert [a["tabindex"] for a in read.of("span") if "data-i" in a].count("0") == 2
    areas = [a for a in read.of("span") if a.get("class") == "area" and "id" in a]
    assert len(areas) == 2 * len(uncertain_spans(output))
    assert len({a["id"] for a in areas}) == len(areas)


def test_numbers_that_json_does_not_know_are_null() -> None:
    only = decoded(max_tokens=4, logit_bias={i: float("-inf") for i in range(1, 7)})
    [data] = Reader(page(only)).data
    assert [datum["margin"] for datum in data] == [None] * 4
    assert [datum["levels"]["margin"] for datum in data] == [0.0] * 4


def test_line_breaks_are_shown_and_kept() -> None:
    html = page(saying(["a\n\nb"]))
    assert html.count('aria-hidden="true">↵</span>\n') == 2


def test_an_output_without_tokens_has_a_page() -> None:
    assert Reader(page(saying([]))).data == [[]]


def test_pictures_that_have_nothing_to_show_say_so() -> None:
    html = page(decoded(max_tokens=5))
    assert html.count("Nothing was drafted.") == 2
    assert timeline_chart([]).is_empty


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        (1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (7, [0, 2, 4, 6]),
        (64, [0, 20, 40, 60]),
        (0.03, [0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03]),
    ],
)
def test_ticks_are_round(top: float, expected: list[float]) -> None:
    assert ticks(top) == pytest.approx(expected)


def test_shapes_stay_within_their_picture() -> None:
    output = decoded(lambda model: [ScriptedDrafter.adversarial(model, 2)], max_tokens=30)
    chart = timeline_chart(output.steps)
    assert len(chart.bars) == 2 * len(output.steps)
    for bar in chart.bars:
        assert chart.left <= bar.x
        assert bar.x + bar.width <= chart.right + 0.1
        assert bar.y >= 0
        assert bar.y + bar.height <= chart.bottom + 0.1
    assert isinstance(chart, Chart)
