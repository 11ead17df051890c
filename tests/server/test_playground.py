"""What the playground shows and does: each figure against the engine's, each text against `generate`'s."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import pytest

from paceline import LLM

from .browsing import (
    PLAIN,
    _usual,
    answer,
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

__all__ = ["_usual", "browser", "page", "site", "visit", "watch"]  # fixtures
pytestmark = needs_chromium

# What a shell, a JSON parser, Python and a browser would each take for something else.
AWKWARD = "Tom's \"cat\" \\n $HOME `id` said:\n\t<b>été 🙂</b> &amp; it's"


def test_what_is_typed_is_continued_in_the_colours_of_the_drafters(page: Any, forced: LLM) -> None:
    text = generate(page, prompt="Once upon a time")
    assert text == forced.generate("Once upon a time", **PLAIN).text
    tokens = page.evaluate("[...document.querySelectorAll('#pane-0 .t')].map(t => t.className)")
    assert len(tokens) == int(page.text_content("#figures div:first-child dd"))
    assert any(" d" in names for names in tokens)
    assert any("own" in names.split() for names in tokens)
    assert "drafts were right" in page.text_content("#why")
    assert "Done: 40 tokens" in page.text_content("#status")
    sources = set(page.evaluate("[...document.querySelectorAll('#legend .sample')].map(s => s.textContent)"))
    assert {"model", "the model itself"} <= sources


def test_the_figures_are_those_of_the_steps(page: Any) -> None:
    generate(page, prompt="Once upon a time")
    [run] = json.loads(exported(page, "json"))["runs"]
    steps, tokens = run["steps"], run["tokens"]
    shown = dict(
        page.evaluate(
            "[...document.querySelectorAll('#figures div')].map(d => [...d.children].map(c => c.textContent))"
        )
    )
    drafted = sum(len(step["tokens"]) for step in steps)
    accepted = sum(min(len(step["path"]), step["num_emitted"]) for step in steps)
    assert shown["tokens a step"] == f"{len(tokens) / len(steps):.2f}"
    assert shown["acceptance"] == f"{100 * accepted / drafted:.0f} %"
    assert shown["seed"] == "7"
    assert shown["ended by"] == run["finish_reason"] == "length"
    assert sum(step["num_emitted"] for step in steps) == len(tokens) == run["usage"]["completion_tokens"]
    lengths = page.evaluate("[...document.querySelectorAll('#lengths td.number')].map(c => Number(c.textContent))")
    emitted = [step["num_emitted"] for step in steps]
    assert sum(lengths) == len(emitted)
    if max(emitted) <= 12:  # beyond, several lengths share a row
        assert lengths == [emitted.count(i + 1) for i in range(max(emitted))]
    first = page.text_content("#positions td.number")
    assert first.endswith(f" of {sum(bool(step['tokens']) for step in steps)}")


def test_long_drafts_share_rows_and_fit_the_strip(page: Any) -> None:
    depth = 63
    step = {
        "tokens": [1] * depth,
        "texts": ["a"] * depth,
        "parents": list(range(-1, depth - 1)),
        "scores": [0.5] * depth,
    }
    step |= {"sources": ["history"] * depth, "path": list(range(50)), "num_emitted": 51}
    step |= {"draft_ms": 1, "forward_ms": 1, "other_ms": 1}
    token = {
        "id": 1,
        "text": "a",
        "source": "history",
        "logprob": -1,
        "entropy": None,
        "margin": 1,
        "top": [],
        "step": 0,
    }
    choice = {"index": 0, "text": "a" * 51, "finish_reason": "stop", "token_details": [token] * 51, "steps": [step]}
    body = f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n"
    page.route("**/v1/completions", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    generate(page)
    rows = "[...document.querySelectorAll('#{} tbody tr')].map(r => [0, 2].map(i => r.children[i].textContent))"
    lengths = page.evaluate(rows.format("lengths"))
    assert len(lengths) <= 12
    assert [row for row in lengths if row[1] != "0"] == [["51", "1"]]
    positions = page.evaluate(rows.format("positions"))
    assert (positions[0], positions[8]) == (["1–6", "100 % of 6"], ["49–54", "33 % of 6"])
    heights = page.evaluate(
        "['nodes', 'nodes .taken', 'nodes .left']"
        ".map(s => document.querySelector(`.step .${s}`).getBoundingClientRect().height)"
    )
    assert heights[1] + heights[2] + 4 <= heights[0]
    assert heights[1] == pytest.approx(50 * 64 / 63, abs=1)


def test_plain_decoding_races_with_the_same_bytes(page: Any, forced: LLM) -> None:
    fill(page, prompt="Once upon a time")
    page.click("#race")
    page.wait_for_selector("#replay:not([hidden])")
    plain = forced.generate("Once upon a time", **PLAIN).text
    assert (answer(page, 0), answer(page, 1)) == (plain, plain)
    assert page.text_content("#differ") == "0 bytes differ"
    assert f"of {len(plain.encode())} compared" in page.text_content("#ratio")
    clocks = [float(page.text_content(f"#pane-{i} .clock").split()[0]) for i in (0, 1)]
    assert min(clocks) > 0
    steps = [run["steps"] for run in json.loads(exported(page, "json"))["runs"]]
    assert len(steps[0]) < len(steps[1]) == 40
    page.click("#replay")
    wait_for(page, "#replay:text-is('Replay side by side')")
    assert page.query_selector(".t.later") is None


def test_a_replay_shows_each_token_when_its_step_ended(page: Any) -> None:
    shown = page.evaluate("""async () => {
      const { replay } = await import("/static/race.js");
      const run = (ms, steps) => ({ decodeMs: ms, tokens: Array(5), steps });
      const runs = [run(90, [{ ms: 30, first: 0 }, { ms: 60, first: 3 }]), run(200, [{ ms: 200, first: 0 }])];
      const seen = [[], []];
      await new Promise((resolve) => replay(runs, (side, count, now) => seen[side].push([count, now]), resolve));
      return seen;
    }""")
    for ends, frames in zip(([(30, 3), (90, 5)], [(200, 5)]), shown, strict=True):
        for count, now in frames:
            assert count == max([0, *(tokens for end, tokens in ends if end <= now)])
        assert frames[-1][0] == 5
        assert len(frames) > 2


def test_a_byte_that_differs_is_counted(page: Any) -> None:
    def spoil(route: Any) -> None:
        response = route.fetch()
        first, rest = response.text().split("\n\n", 1)
        if '"drafters":"none"' in route.request.post_data:
            chunk = json.loads(first.removeprefix("data: "))
            chunk["choices"][0]["text"] = "~" + chunk["choices"][0]["text"][1:]
            first = f"data: {json.dumps(chunk)}"
        route.fulfill(response=response, body=f"{first}\n\n{rest}")

    page.route("**/v1/completions", spoil)
    fill(page, prompt="Once upon a time", temperature=0)
    page.click("#race")
    page.wait_for_selector("#replay:not([hidden])")
    assert page.text_content("#differ") == "1 byte differs"
    assert "wrong" in page.get_attribute("#verdict", "class")


def test_a_click_on_a_step_shows_its_tree(page: Any) -> None:
    generate(page, prompt="Once upon a time")
    [run] = json.loads(exported(page, "json"))["runs"]
    index = next(i for i, s in enumerate(run["steps"]) if s["path"] and len(s["path"]) < len(s["tokens"]))
    step = run["steps"][index]
    page.click(f".step[data-i='{index}']")
    words = page.text_content("#step-words")
    assert words.startswith(f"Step {index + 1}: {len(step['tokens'])} drafted by")
    assert f"{len(step['path'])} accepted" in words
    assert page.locator("#tree .node").count() == len(step["tokens"]) + 2  # what came before, and the model's own
    assert page.locator("#tree .node.taken").count() == len(step["path"])
    assert page.locator("#tree .node.left").count() == len(step["tokens"]) - len(step["path"])
    scores = page.evaluate("[...document.querySelectorAll('#tree .node small')].map(s => s.textContent)")
    assert sorted(scores) == sorted(f"{score:.2f}" for score in step["scores"])
    own = [token for token in run["tokens"] if token["step"] == index][-1]["text"]
    assert own.strip() in page.text_content("#tree .node.said")
    boxes = page.evaluate("[...document.querySelectorAll('#tree .node')].map(n => n.getBoundingClientRect().toJSON())")
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert (
                a["left"] >= b["right"] or b["left"] >= a["right"] or a["top"] >= b["bottom"] or b["top"] >= a["bottom"]
            )


def test_a_token_tells_its_alternatives(page: Any) -> None:
    generate(page, prompt="Once upon a time")
    [run] = json.loads(exported(page, "json"))["runs"]
    token = run["tokens"][9]
    page.hover(".t[data-i='9']")
    tip = page.inner_text("#tip")
    assert f"{token['entropy']:.2f} nats" in tip
    assert page.locator("#tip .top code").count() == len(token["top"]) == 5
    page.keyboard.press("Escape")
    assert page.is_hidden("#tip")
    colour = "getComputedStyle(document.querySelector(\".t[data-i='9']\")).backgroundColor"
    seen = set()
    for measure in ("drafter", "probability", "entropy", "time"):
        page.check(f"input[value={measure}]")
        seen.add(page.evaluate(colour))
    assert len(seen) == 4


@pytest.mark.parametrize("mode", ["text", "chat"])
def test_the_exported_commands_give_the_same_bytes(page: Any, mode: str) -> None:
    page.check(f"input[name=mode][value={mode}]")
    if mode == "chat":
        page.fill("#messages textarea", AWKWARD)
        text = generate(page, max_tokens=20)
    else:
        text = generate(page, prompt=AWKWARD, max_tokens=20)
    assert len(text) > 20
    with redirect_stdout(StringIO()) as printed:
        exec(exported(page, "python"), {})
    assert printed.getvalue() == text
    if shutil.which("curl"):
        done = subprocess.run(["bash", "-c", exported(page, "curl")], capture_output=True, text=True, timeout=60)
        choice = json.loads(done.stdout)["choices"][0]
        assert (choice["text"] if mode == "text" else choice["message"]["content"]) == text
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "paceline.sh"


def test_a_chat_is_gone_on_with(page: Any, site: str) -> None:
    page.check("input[name=mode][value=chat]")
    text = generate(page)
    page.click("#continue")
    turns = page.evaluate("[...document.querySelectorAll('#messages textarea')].map(t => t.value)")
    assert turns[1:] == [text, ""]
    page.keyboard.type("And then?")
    assert generate(page) != text
    page.evaluate("document.querySelector('#read').open = true")
    assert page.text_content("#read-text") == f"user: {turns[0]}\nassistant: {text}\nuser: And then?\nassistant:"


def test_a_text_is_edited_and_gone_on_with_under_another_seed(page: Any) -> None:
    text = generate(page, prompt="The cat", max_tokens=12)
    page.click("#continue")
    assert page.input_value("#prompt") == f"The cat{text}"
    page.click("#again")
    wait_for(page, "#status:text-matches('^Done')")
    assert page.input_value("#seed") != "7"


def test_drafters_are_switched_off_and_the_page_says_so(page: Any) -> None:
    page.select_option("#drafters", "none")
    generate(page)
    assert page.text_content("#why") == "Nobody was allowed to draft, so every token took a step of its own."
    assert "Nothing was drafted." in page.text_content("#positions")
