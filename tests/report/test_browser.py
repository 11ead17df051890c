"""The page in a real browser: what is visible, what hovering and keys do, and a clean console."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from paceline.bundled import COMMANDS
from paceline.report.evaluate import evaluate
from paceline.report.fields import read_commands
from paceline.report.page import page
from report.browser import Browser
from report.support import saying

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM is not None
    with Browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def real(forced, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two outputs of the bundled model and a small evaluation."""
    prompts = ["Command: play some jazz by miles davis\nJSON:", "Once upon a time"]
    outputs = forced.generate(prompts, max_tokens=60, temperature=0.7, seed=3, logprobs=5)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(outputs, evaluate(forced, read_commands(COMMANDS)[::70], lambda: None)), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: Browser, real: Path) -> Iterator[Browser]:
    """The page freshly loaded; whatever the test did to it, the console must have stayed clean."""
    browser.messages.clear()
    browser.requests.clear()
    browser.move_to(1, 1)
    browser.prefer("light")
    browser.open(real)
    yield browser
    assert browser.messages == []
    assert browser.requests == [real.resolve().as_uri()]


def visible(browser: Browser, selector: str) -> bool:
    """Whether the first element of a selector takes up room and is displayed."""
    return browser.evaluate(
        f"(e => e !== null && e.checkVisibility() && e.getBoundingClientRect().width > 0)"
        f"(document.querySelector({selector!r}))"
    )


def middle(browser: Browser, selector: str) -> tuple[float, float]:
    """Where the first element of a selector is, once it has been scrolled to."""
    x, y = browser.evaluate(
        f"(e => {{ e.scrollIntoView({{block: 'center'}}); const box = e.getClientRects()[0];"
        f" return [box.x + box.width / 2, box.y + box.height / 2]; }})(document.querySelector({selector!r}))"
    )
    return x, y


def background(browser: Browser, selector: str) -> str:
    return browser.evaluate(f"getComputedStyle(document.querySelector({selector!r})).backgroundColor")


def test_the_parts_of_the_page_are_visible(opened: Browser) -> None:
    for part in (
        "h1",
        ".note",
        "#measures",
        "#legend .key",
        "article .text .t",
        "ol.spans li",
        "#scores",
        "#misjudged",
    ):
        assert visible(opened, part), part
    assert "Uncertainty is not error." in opened.evaluate("document.body.innerText")
    assert not visible(opened, "#tip")
    assert opened.evaluate("document.querySelectorAll('svg').length") == 2 + 3 + 1
    assert opened.evaluate("[...document.querySelectorAll('svg')].every(s => s.getBoundingClientRect().height > 100)")
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_hovering_shows_the_measures_and_five_alternatives(opened: Browser) -> None:
    opened.move_to(*middle(opened, "article .t[data-i='7']"))
    assert visible(opened, "#tip")
    said = opened.evaluate("document.getElementById('tip').innerText")
    for word in ("entropy", "probability", "margin", "step"):
        assert word in said
    assert opened.evaluate("document.querySelectorAll('#tip .top code').length") == 5
    inside = "(b => b.left >= 0 && b.top >= 0 && b.right <= innerWidth && b.bottom <= innerHeight)"
    assert opened.evaluate(f"{inside}(document.getElementById('tip').getBoundingClientRect())")
    opened.move_to(1, 1)
    assert not visible(opened, "#tip")


@pytest.mark.parametrize("measure", ["probability", "margin", "kind", "drafter", "disagreement"])
def test_the_measure_is_switched_by_a_click(opened: Browser, measure: str) -> None:
    tokens = "[...document.querySelectorAll('article .t')].map(e => getComputedStyle(e).background).join()"
    before = opened.evaluate(tokens)
    opened.click(*middle(opened, f"#measures input[value={measure}]"))
    assert opened.evaluate(tokens) != before
    shown = "[...document.querySelectorAll('#legend .key')].filter(e => e.checkVisibility()).map(e => e.dataset.for)"
    assert opened.evaluate(shown) == [measure]


def test_an_unsure_token_is_coloured_more_than_a_sure_one(opened: Browser) -> None:
    entropies = "JSON.parse(document.querySelector('script.data').textContent).map(d => d.entropy)"
    values = opened.evaluate(entropies)
    least, most = values.index(min(values)), values.index(max(values))
    alphas = [
        opened.evaluate(
            f"getComputedStyle(document.querySelector(\"article .t[data-i='{i}']\")).getPropertyValue('--u')"
        )
        for i in (least, most)
    ]
    assert float(alphas[0]) < 0.2 < 0.6 < float(alphas[1])
    assert background(opened, f"article .t[data-i='{most}']") != background(opened, f"article .t[data-i='{least}']")


def test_keys_walk_from_token_to_token(opened: Browser) -> None:
    opened.evaluate("document.querySelector('article .t').focus()")
    opened.press("ArrowRight")
    opened.press("ArrowRight")
    opened.press("ArrowLeft")
    assert opened.evaluate("document.activeElement.dataset.i") == "1"
    assert visible(opened, "#tip")
    opened.press("Escape")
    assert not visible(opened, "#tip")


def test_dark_mode_is_dark(opened: Browser) -> None:
    light = background(opened, "body")
    opened.prefer("dark")
    dark = background(opened, "body")
    assert light == "rgb(247, 245, 241)"
    assert dark == "rgb(18, 20, 24)"


def test_hostile_tokens_are_shown_as_text_and_run_nothing(browser: Browser, tmp_path: Path) -> None:
    texts = [
        "</script><script>window.ran = 1</script>",
        "<img src=x onerror='window.ran = 1'>",
        "שלום",
        "\n",
        "🙂",
        "<!--",
    ]
    path = tmp_path / "hostile.html"
    path.write_text(page(saying(texts)), encoding="utf-8")
    browser.messages.clear()
    browser.open(path)
    assert browser.evaluate("window.ran") is None
    shown = browser.evaluate("[...document.querySelectorAll('article .t')].map(e => e.textContent)")
    assert shown == [text.replace("\n", "↵\n") for text in texts]
    browser.move_to(*middle(browser, "article .t"))
    assert texts[0] in browser.evaluate("document.querySelector('#tip .word').textContent").replace("␣", " ")
    assert browser.messages == []
