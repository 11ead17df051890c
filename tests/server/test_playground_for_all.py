"""The playground for people with a keyboard, a phone, a dark room or other eyes, and what its files come with."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from .asking import ask
from .browsing import DONE, _usual, browser, fill, generate, needs_chromium, page, site, visit, wait_for, watch

__all__ = ["_usual", "browser", "page", "site", "visit", "watch"]  # fixtures

# For all visible elements with text of their own: what, its contrast by WCAG 2.2, and its size in pixels. Backgrounds
# that let others through are laid over them.
CONTRASTS = """() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.e-]+/g).map(Number);
    return text.startsWith("color(") ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
  const ground = (element) => {
    if (!element) return [255, 255, 255];
    const own = parse(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, ground(element.parentElement));
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const hasText = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!hasText || !element.checkVisibility() || element.matches(":disabled, option, noscript, .skip")) continue;
    const under = ground(element);
    const [a, b] = [light(over(parse(getComputedStyle(element).color), under)), light(under)].sort((x, y) => y - x);
    const name = `${element.tagName}.${element.className} ${element.textContent.slice(0, 20)}`;
    found.push([name, (a + 0.05) / (b + 0.05)]);
  }
  return found;
}"""


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(visit: Callable[..., Any], scheme: str) -> None:
    page = visit(color_scheme=scheme)
    generate(page)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    # Each drafter's colour, whether or not it drafted just now.
    page.evaluate(
        "document.querySelectorAll('#pane-0 .t').forEach((t, i) => { t.className = 't d' + (i % 7); });"
        "document.querySelectorAll('#tree .node').forEach((n, i) => { n.className = 'node taken d' + (i % 7); });"
    )
    found = page.evaluate(CONTRASTS)
    page.check("input[value=probability]")
    page.evaluate("document.querySelectorAll('.t').forEach(t => t.style.setProperty('--level', 1))")
    page.hover(".t[data-i='3']")
    found += page.evaluate(CONTRASTS)
    assert len(found) > 150
    assert [one for one in found if one[1] < 4.5] == []


@needs_chromium
def test_a_telephone_needs_no_sideways_scrolling(visit: Callable[..., Any]) -> None:
    page = visit(viewport={"width": 320, "height": 640}, has_touch=True)
    fits = "document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(fits)
    generate(page)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.evaluate(fits)
    page.tap(".t[data-i='20']")
    assert page.evaluate(
        "(b => b.left >= 0 && b.right <= innerWidth)(document.querySelector('#tip').getBoundingClientRect())"
    )
    page.check("input[name=mode][value=chat]")
    page.click("#race")
    page.wait_for_selector("#replay:not([hidden])")
    assert page.evaluate(fits)
    tops = page.evaluate("[0, 1].map(i => document.querySelector(`#pane-${i}`).getBoundingClientRect().top)")
    assert tops[0] < tops[1]


@needs_chromium
def test_a_keyboard_is_enough(page: Any) -> None:
    def focused() -> str:
        place: str = page.evaluate("document.activeElement.id || document.activeElement.className")
        return place

    def tab_to(place: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if focused() == place or place in focused().split():
                return
        raise AssertionError(f"no way to {place}")

    tab_to("prompt")
    page.keyboard.press("Control+A")
    page.keyboard.type("The little bird")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(DONE)
    assert page.input_value("#prompt") == "The little bird"
    tab_to("t")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.i") == "2"
    assert page.is_visible("#tip")
    assert page.get_attribute(".t[data-i='2']", "aria-describedby") == "tip"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    tab_to("step")
    assert page.is_hidden("#tip")
    page.keyboard.press("End")
    last = page.locator(".step").count()
    assert page.text_content("#step-words").startswith(f"Step {last}:")
    page.keyboard.press("Home")
    assert page.text_content("#step-words").startswith("Step 1:")
    assert page.locator(".step[tabindex='0']").count() == page.locator("#pane-0 .t[tabindex='0']").count() == 1


@needs_chromium
def test_a_screen_reader_hears_the_end_and_not_every_token(page: Any) -> None:
    assert page.get_attribute("#pane-0 .text", "aria-live") == "off"
    generate(page)
    assert page.get_attribute("#status", "role") == "status"
    assert page.text_content("#status").startswith("Done: 40 tokens in")
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, select, textarea')].filter(e =>"
        " !e.textContent.trim() && !e.labels?.length && !e.getAttribute('aria-label')).map(e => e.outerHTML)"
    )
    assert unnamed == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


@needs_chromium
def test_who_wants_no_motion_is_shown_the_end_at_once(visit: Callable[..., Any]) -> None:
    page = visit(reduced_motion="reduce")
    fill(page)
    page.click("#race")
    wait_for(page, "#status:text-matches('^Done')")
    assert page.is_hidden("#replay")


@needs_chromium
def test_drafters_differ_by_more_than_colour(page: Any) -> None:
    generate(page)
    page.evaluate("document.querySelectorAll('#pane-0 .t').forEach((t, i) => { t.className = 't d' + (i % 7); })")
    lines = page.evaluate(
        "[...document.querySelectorAll('#pane-0 .t')].slice(0, 7).map(t => getComputedStyle(t).textDecorationStyle)"
    )
    assert set(lines) == {"solid", "double", "dotted", "dashed", "wavy"}


def test_files_are_served_under_a_strict_policy_and_cached_by_their_content(url: str) -> None:
    for path, kind in (
        ("/", "text/html"),
        ("/static/playground.js", "text/javascript"),
        ("/static/figures.css", "text/css"),
    ):
        answer = ask(url, path)
        headers = answer.headers
        assert (answer.status, headers["content-type"]) == (200, f"{kind}; charset=utf-8")
        assert b"<script>" not in answer.body
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
        assert headers["cache-control"] == "no-cache"
        again = ask(url, path, headers={"if-none-match": headers["etag"]})
        assert (again.status, again.body) == (304, b"")
        assert ask(url, path, method="HEAD").headers["etag"] == headers["etag"]
    for path in ("/static/nothing.js", "/static/..%2Fapp.py", "/static/%2e%2e/app.py"):
        assert ask(url, path).status == 404
