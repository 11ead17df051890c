"""The playground for people with a keyboard, a phone, a dark room or other eyes, and before servers of other kinds."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from paceline import LLM
from paceline.server import Settings, create_app

from .asking import ask
from .browsing import (
    DONE,
    _usual,
    browser,
    exported,
    fill,
    generate,
    needs_chromium,
    page,
    site,
    visit,
    wait_for,
    watch,
)
from .running import running

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
    generate(page, max_tokens=24)
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
    assert len(found) > 120
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


@needs_chromium
def test_markup_stays_text_wherever_it_comes_from(page: Any) -> None:
    bad = "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'>"
    generate(page, prompt=bad, max_tokens=5)
    page.evaluate("document.querySelector('#read').open = true")
    assert page.text_content("#read-text") == bad
    step = {"tokens": [1], "texts": [bad], "parents": [-1], "scores": [0.5], "sources": [bad], "path": [0]}
    step |= {"num_emitted": 1, "draft_ms": 1, "forward_ms": 1, "other_ms": 1}
    token = {"id": 1, "text": bad, "source": bad, "logprob": -1, "entropy": 1, "margin": None, "step": 0}
    token["top"] = [{"id": 1, "text": bad, "logprob": -1}]
    choice = {"index": 0, "text": bad, "finish_reason": "stop", "token_details": [token], "steps": [step]}
    choice["pacing"] = {"sentence": bad, "stops": {}, "accounts": {}, "drafters": {}}
    body = f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n"
    page.route("**/v1/completions", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    assert generate(page) == bad
    page.hover("#pane-0 .t")
    assert page.evaluate("window.ran") is None
    assert page.locator("#output img, #output script, #tree img, #tip img").count() == 0


@needs_chromium
def test_escape_stops_and_a_reload_begins_anew(page: Any) -> None:
    fill(page, max_tokens=1500, prompt="Once upon a time")
    page.click("#generate")
    page.wait_for_selector(".t")
    page.keyboard.press("Escape")
    wait_for(page, "#status:text-is('Stopped.')")
    assert page.is_enabled("#generate")
    page.fill("#key", "secret", force=True)
    page.reload()
    page.wait_for_selector("#empty")
    wait_for(page, "#model option")
    assert page.input_value("#key") == ""
    assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
    generate(page)


@needs_chromium
def test_the_load_is_shown_where_the_server_tells_it(page: Any) -> None:
    told = 'vllm:num_requests_running{model_name="m"} 3.0\nvllm:num_requests_waiting{model_name="m"} 2.0\n'
    told += "vllm:kv_cache_usage_perc 0.25\nvllm:prefix_cache_hits_total 30\nvllm:prefix_cache_queries_total 40\n"
    about = page.evaluate("fetch('playground').then(a => a.json())") | {"load": ["/metrics"]}
    page.route("**/playground", lambda route: route.fulfill(json=about))
    page.route("**/metrics", lambda route: route.fulfill(body=f"# HELP x\n{told}"))
    page.reload()
    page.wait_for_selector("#load:not([hidden])")
    words = " ".join(page.inner_text("#load").split())
    assert words == "running 3 waiting 2 cache used 25 % prefix hits 75 %"


def test_the_page_is_told_of_what_the_server_tells_of_its_load(forced: LLM) -> None:
    app = create_app(forced)
    app.add_api_route("/metrics", lambda: "")
    with running(app) as url:
        assert "/metrics" in ask(url, "/playground").json["load"]


@needs_chromium
def test_what_was_read_before_is_shaded(page: Any) -> None:
    prompt = "The fox and the hen went to the market. " * 20
    shaded = []
    for _ in range(2):
        generate(page, prompt=prompt, max_tokens=3)
        page.evaluate("document.querySelector('#read').open = true")
        shaded.append("".join(page.locator("#read-text mark").all_text_contents()))
        assert page.text_content("#read-text") == prompt
    assert shaded[0] == ""
    assert len(shaded[1]) > 100
    assert prompt.startswith(shaded[1])
    assert "in the prefix cache" in page.text_content("#read-words")


@needs_chromium
def test_a_model_without_a_template_has_no_chat(page: Any) -> None:
    about = page.evaluate("fetch('playground').then(a => a.json())") | {"has_chat_template": False}
    page.route("**/playground", lambda route: route.fulfill(json=about))
    page.reload()
    wait_for(page, "#model option")
    assert page.is_hidden("#modes")


@needs_chromium
def test_a_key_is_asked_for_and_never_exported(browser: Any, forced: LLM) -> None:
    with running(create_app(forced, Settings(("paceline-tiny",), keys=("sesame",)))) as url:
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector("#problem:not([hidden])")
        page.fill("#key", "sesame")
        page.press("#key", "Tab")
        wait_for(page, "#model option")
        generate(page, max_tokens=5)
        forms = [exported(page, form) for form in ("curl", "python", "json")]
        assert all("PACELINE_API_KEY" in form for form in forms[:2])
        assert not any("sesame" in form for form in forms)
        page.fill("#prompt", "word " * 3000)
        page.click("#generate")
        wait_for(page, "#problem:has-text('maximum context length')")
        page.close()
