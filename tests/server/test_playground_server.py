"""The playground and its server: what it learns from it, what it never tells it, and texts that would be markup."""

from __future__ import annotations

import json
from typing import Any

from paceline import LLM
from paceline.server import Settings, create_app

from .asking import ask
from .browsing import _usual, browser, exported, fill, generate, needs_chromium, page, site, visit, wait_for, watch
from .running import running

__all__ = ["_usual", "browser", "page", "site", "visit", "watch"]  # fixtures
pytestmark = needs_chromium


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


def test_a_model_without_a_template_has_no_chat(page: Any) -> None:
    about = page.evaluate("fetch('playground').then(a => a.json())") | {"has_chat_template": False}
    page.route("**/playground", lambda route: route.fulfill(json=about))
    page.reload()
    wait_for(page, "#model option")
    assert page.is_hidden("#modes")


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
