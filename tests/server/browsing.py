"""The playground in a real Chromium, by playwright: fixtures, and what every page must do whatever is done to it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from paceline import LLM
from paceline.server import Settings, create_app

from .conftest import TEMPLATE
from .running import running

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")

DONE = "#after:not([hidden])"
PLAIN = {"temperature": 0.7, "max_tokens": 40, "seed": 7, "drafters": "none"}


@pytest.fixture(scope="module")
def site(forced: LLM) -> Iterator[str]:
    """A server whose every step is drafted."""
    with running(create_app(forced, Settings(("paceline-tiny",), chat_template=TEMPLATE))) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


class Watch:
    """What a page may not do."""

    def __init__(self, site: str) -> None:
        self._site = site
        self.messages: list[str] = []  # of the console, and uncaught errors
        self.strangers: list[str] = []  # addresses of other hosts that were asked

    def page(self, browser: Any, **options: Any) -> Any:
        """A page that is watched, in a context of its own."""
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        context.set_default_timeout(20_000)
        context.route(lambda url: not url.startswith((f"{self._site}/", "data:", "blob:")), self._refuse)
        page = context.new_page()
        page.on("console", lambda message: self.messages.append(message.text))
        page.on("pageerror", lambda error: self.messages.append(str(error)))
        return page

    def _refuse(self, route: Any) -> None:
        self.strangers.append(route.request.url)
        route.abort()


@pytest.fixture(scope="module")
def watch(site: str) -> Watch:
    return Watch(site)


@pytest.fixture
def visit(browser: Any, site: str, watch: Watch) -> Iterator[Callable[..., Any]]:
    """Opens pages, of which each must leave the console clean and ask no other host."""
    watch.messages.clear()
    watch.strangers.clear()
    pages: list[Any] = []

    def opened(**options: Any) -> Any:
        pages.append(watch.page(browser, **options))
        return _loaded(pages[-1], site)

    yield opened
    for page in pages:
        page.context.close()
    assert (watch.messages, watch.strangers) == ([], [])


@pytest.fixture(scope="module")
def _usual(browser: Any, watch: Watch) -> Any:
    return watch.page(browser)


@pytest.fixture
def page(_usual: Any, site: str, watch: Watch) -> Iterator[Any]:
    """The page freshly loaded; it keeps nothing between loads."""
    watch.messages.clear()
    watch.strangers.clear()
    yield _loaded(_usual, site)
    _usual.unroute_all()
    assert (watch.messages, watch.strangers) == ([], [])


def _loaded(page: Any, site: str) -> Any:
    page.goto(site)
    wait_for(page, "#model option")
    return page


def wait_for(page: Any, selector: str) -> None:
    """Wait for an element, seen or not. Waiting for an expression would need `eval`, which the policy forbids."""
    page.wait_for_selector(selector, state="attached")


def fill(page: Any, **fields: object) -> None:
    """Fill in the form; what is not named is as in `PLAIN`."""
    for name, value in {"max_tokens": PLAIN["max_tokens"], "temperature": 0.7, "seed": 7, **fields}.items():
        page.fill(f"#{name.replace('_', '-')}", str(value))


def generate(page: Any, **fields: object) -> str:
    """The text of an answer."""
    fill(page, **fields)
    page.click("#generate")
    page.wait_for_selector(DONE)
    return answer(page)


def answer(page: Any, pane: int = 0) -> str:
    text: str = page.text_content(f"#pane-{pane} .text")
    return text


def exported(page: Any, form: str) -> str:
    """The text of an export."""
    page.evaluate("document.querySelector('#export').open = true")
    page.check(f"input[name=form][value={form}]")
    text: str = page.text_content("#exported")
    return text
