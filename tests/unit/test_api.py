"""The public API as its users type it: on the bundled model, in threads, in coroutines, in notebooks."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import paceline
from paceline import LLM, ConfigError, RequestError, SamplingParams, StateError
from paceline.bundled import DEFAULT_DRAFT, DEFAULT_TARGET, bundled_path
from paceline.pacing import FixedPacer
from paceline.testing import ScriptedDrafter
from unit.stepped import SteppedTarget, counted, has_mail, let_join

PROMPT = "Once upon a time"


def copied(folder: Path, *, without: str = "") -> Path:
    """The bundled target as a folder of the user's own."""
    folder.mkdir()
    for path in bundled_path(DEFAULT_TARGET).iterdir():
        if not without or without not in path.name:
            (folder / path.name).symlink_to(path)
    return folder


# Loading


def test_a_model_is_loaded_by_name_by_folder_and_as_it_is(tmp_path: Path, bundled: LLM) -> None:
    expected = bundled.generate(PROMPT, max_tokens=9).text
    folder = copied(tmp_path / "mine, and yours")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    assert paceline.load is LLM
    for source in (DEFAULT_TARGET, str(folder), folder, model):
        with LLM(source, cache_tokens=640, drafters="none") as llm:
            assert llm.generate(PROMPT, max_tokens=9).text == expected


@pytest.mark.parametrize(
    ("drafters", "given"),
    [
        ("auto", "name"),
        ("auto", "folder"),
        ("auto", "model"),
        ("none", "folder"),
        (["suffix", "model:width=1"], "model"),
        (["suffix"], "name"),
    ],
)
def test_a_draft_model_joins_the_drafters(tmp_path: Path, drafters, given: str) -> None:
    folder, small = copied(tmp_path / "mine"), bundled_path(DEFAULT_DRAFT)
    draft_model = {"name": DEFAULT_DRAFT, "folder": small}.get(given) or AutoModelForCausalLM.from_pretrained(small)
    with LLM(folder, draft_model=draft_model, drafters=drafters, cache_tokens=640) as llm:
        names = [drafter.name for drafter in llm._runtime._chosen]
        assert [name for name in names if name.startswith("model")] == ["model"]
        assert ("suffix" in names) == (drafters != "none")
        out = llm.generate(PROMPT, max_tokens=30, pacer=FixedPacer(5))
        assert out.stats.drafters["model"].num_accepted_draft_tokens > 0


def test_a_folder_without_a_tokenizer_takes_ids_and_gives_ids(tmp_path: Path, bundled: LLM) -> None:
    ids = bundled.encode(PROMPT)
    with LLM(copied(tmp_path / "bare", without="token"), cache_tokens=640) as llm:
        out = llm.generate(ids, max_tokens=9)
        assert (out.token_ids, out.text) == (bundled.generate(ids, max_tokens=9).token_ids, "")
        wants_one = [
            lambda: llm.generate(PROMPT),
            lambda: llm.generate(ids, bad_words=["a"]),
            lambda: llm.generate(ids, regex="a+"),
            lambda: llm.chat([{"role": "user", "content": "Hello"}]),
        ]
        for call in wants_one:
            with pytest.raises(RequestError, match="this model has no tokenizer"):
                call()


def test_a_folder_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(paceline.ModelError):
        LLM(tmp_path)


# Outputs


def test_a_prompt_gives_an_output_and_a_list_gives_a_list(bundled: LLM) -> None:
    params = SamplingParams(temperature=0.8, seed=7, max_tokens=5)
    one, several = bundled.generate(PROMPT, params), bundled.generate([PROMPT, "Twice"], sampling_params=params)
    assert several[0].text == one.text
    assert [type(several), len(several)] == [list, 2]
    assert len(bundled.generate([PROMPT], params, n=3)) == 3
    with pytest.raises(ConfigError, match=r"n is 3; allowed with a single prompt: 1\. A list, \[prompt\]"):
        bundled.generate(PROMPT, params, n=3)


def test_statistics_are_attributes_and_a_dictionary_for_json(bundled: LLM) -> None:
    stats = bundled.generate(PROMPT, max_tokens=12).stats
    assert stats.mean_acceptance_length == stats.as_dict()["mean_acceptance_length"] >= 1.0
    assert stats.num_emitted_tokens == 12


def test_a_notebook_shows_who_proposed_what_and_escapes_it(bundled: LLM) -> None:
    plain = bundled.generate(PROMPT, max_tokens=20, drafters="none")
    out = bundled.generate(PROMPT, max_tokens=20, prediction=plain.token_ids, pacer=FixedPacer(5))
    sources = {token.source for token in out.tokens} - {"target"}
    html = out._repr_html_()
    assert sources
    assert all(f'title="{source}"' in html for source in sources)
    hostile = copy.copy(out.tokens[0])
    object.__setattr__(hostile, "text", "<script>&")
    shown = paceline.Output("", (1,), (hostile,), "stop", 0, out.stats, (), out.origin)._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;&amp;" in shown


# Coroutines


def test_coroutines_get_the_same_bytes(bundled: LLM) -> None:
    how = {"max_tokens": 17, "temperature": 0.9, "seed": 3}
    prompts = [PROMPT, "The cat", "Lily said"]

    async def read(prompt: str) -> str:
        return "".join([token.text async for token in bundled.astream(prompt, **how)])

    async def everything() -> tuple[list, list, list]:
        several, alone, streamed = await asyncio.gather(
            bundled.agenerate(prompts, **how),
            asyncio.gather(*(bundled.agenerate(p, SamplingParams(**how)) for p in prompts)),
            asyncio.gather(*map(read, prompts)),
        )
        return [out.text for out in several], [out.text for out in alone], streamed

    expected = [out.text for out in bundled.generate(prompts, **how)]
    assert asyncio.run(everything()) == (expected, expected, expected)


def test_a_cancelled_task_ends_its_own_request_alone() -> None:
    target = SteppedTarget()
    llm = LLM.from_target(target, drafters="none")

    async def run() -> tuple[int, ...]:
        kept = asyncio.create_task(llm.agenerate([2], max_tokens=9))
        given_up = [asyncio.create_task(llm.agenerate([1], max_tokens=9)), asyncio.create_task(drain(llm.astream([3])))]
        await asyncio.to_thread(target.waits.wait, 60)
        await asyncio.to_thread(let_join, llm, target, 3)
        for task in given_up:
            task.cancel()
        done = await asyncio.gather(*given_up, return_exceptions=True)
        assert all(isinstance(error, asyncio.CancelledError) for error in done)
        target.let(30)
        return (await kept).token_ids

    async def drain(stream: paceline.AsyncStream) -> None:
        async for _ in stream:
            pass

    assert asyncio.run(run()) == tuple(counted(2, 9))
    llm.close()
    assert target.num_held == 0


def test_an_asynchronous_stream_that_is_closed_has_an_output(bundled: LLM) -> None:
    async def run() -> paceline.Output:
        async with bundled.astream(PROMPT, max_tokens=1500, ignore_eos=True) as stream:
            with pytest.raises(StateError, match="has not begun"):
                _ = stream.output
            await stream.__anext__()
            with pytest.raises(StateError, match="still running"):
                _ = stream.output
        return stream.output

    assert asyncio.run(run()).finish_reason == "abort"


def test_an_error_reaches_the_coroutine(bundled: LLM) -> None:
    async def run() -> None:
        with pytest.raises(RequestError, match="outside the vocabulary"):
            await bundled.agenerate([10**6])
        with pytest.raises(ConfigError, match="temperature"):
            bundled.astream(PROMPT, temperature=-1)

    asyncio.run(run())


def test_an_event_loop_that_is_gone_does_not_disturb_the_engine() -> None:
    target = SteppedTarget()
    llm = LLM.from_target(target, drafters="none")
    loop = asyncio.new_event_loop()
    stream = llm.astream([1], max_tokens=9)

    async def begin() -> None:
        target.let()
        await stream.__anext__()

    loop.run_until_complete(begin())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    target.let(30)
    assert llm.generate([2], max_tokens=3).token_ids == tuple(counted(2, 3))


# The thread


def num_threads() -> int:
    return len(os.listdir("/proc/self/task"))


OWN_PROCESS = """
import os, threading, time, warnings, torch, paceline
torch.set_num_threads(2)
def count(): return len(os.listdir("/proc/self/task"))
llm = paceline.LLM(drafters="none")
llm.generate("Once", max_tokens=5)
before = count()
callers = [threading.Thread(target=llm.generate, args=("Once",), kwargs={"max_tokens": 9}) for _ in range(4)]
for caller in callers: caller.start()
for caller in callers: caller.join()
end = time.monotonic() + 30  # a thread that has been joined may live a moment longer
while count() != before and time.monotonic() < end: time.sleep(0.01)
print(count() - before, flush=True)
warnings.simplefilter("ignore", DeprecationWarning)
if (child := os.fork()) == 0:
    try:
        llm.generate("Once", max_tokens=2)
    except paceline.StateError as error:
        print(error, flush=True)
    llm.close()
    os._exit(0)
os.waitpid(child, 0)
print(len(llm.generate("Once", max_tokens=2).tokens), flush=True)
llm.close()

from transformers import LlamaConfig, LlamaForCausalLM
def resident(): return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
def model(num_layers):
    return LlamaForCausalLM(LlamaConfig(vocab_size=9001, hidden_size=1024, intermediate_size=2048,
        num_hidden_layers=num_layers, num_attention_heads=8, num_key_value_heads=4)).eval()
with paceline.LLM(model(1), cache_tokens=640, drafters="none") as warm: warm.generate([1], max_tokens=2)
del warm
before = resident()
llm = paceline.LLM(model(4), cache_tokens=6400, drafters="none")
stream = llm.stream([1, 2], max_tokens=3)
list(stream)
held = resident() - before
llm.close()
print(held, resident() - before, stream.output.token_ids != (), flush=True)
os._exit(0)
"""


@pytest.fixture(scope="module")
def said_by_a_process_of_its_own(python: str) -> list[str]:
    """Where nobody else starts threads, forks or takes memory: what is said of each, a line for each test below."""
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("needs Linux's list of threads and its account of memory")
    done = subprocess.run([python, "-c", OWN_PROCESS], capture_output=True, text=True, timeout=120)
    assert len(done.stdout.splitlines()) == 4, done.stderr
    return done.stdout.splitlines()


def test_four_python_threads_that_decode_add_no_thread_of_the_system(said_by_a_process_of_its_own: list[str]) -> None:
    """The callers' own four are over by then."""
    assert said_by_a_process_of_its_own[0] == "0"


def test_the_memory_is_back_after_close(said_by_a_process_of_its_own: list[str]) -> None:
    """A third of a gigabyte, most of it given back."""
    held, left, is_kept = said_by_a_process_of_its_own[3].split()
    assert float(held) > 250
    assert float(left) < 0.1 * float(held)
    assert is_kept == "True"


def test_an_llm_that_nobody_holds_ends_its_thread() -> None:
    llm = LLM.from_target(SteppedTarget(), drafters="none")
    thread = llm._runtime.thread._thread
    del llm
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


def test_a_long_prompt_is_given_up_at_its_next_chunk(bundled: LLM) -> None:
    read = []
    stream = bundled.stream([5, 6, 7] * 500, max_tokens=2, tenant="gives up")

    def on_chunk(count: int) -> None:
        read.append(count)
        stream._reader.give_up()

    bundled.on_prefill(on_chunk)
    try:
        assert list(stream) == []
    finally:
        bundled.on_prefill(None)
    assert (stream.output.finish_reason, len(read)) == ("abort", 1)
    assert bundled.engine.scheduler.is_idle


def test_another_process_is_told_to_load_its_own(said_by_a_process_of_its_own: list[str]) -> None:
    _, child, parent, _ = said_by_a_process_of_its_own
    assert child == "this LLM belongs to the process that loaded it; load the model in each process"
    assert parent == "2"


class Asks(ScriptedDrafter):
    """Asks the LLM that it works for."""

    llm: LLM

    def propose_one(self, request, limits):
        self.llm.generate([1])


def test_a_drafter_that_asks_its_own_llm_is_told_so_and_does_not_hang() -> None:
    llm = LLM.from_target(SteppedTarget(), drafters="none")
    llm.target.let(9)
    drafter = Asks()
    drafter.llm = llm
    with pytest.warns(UserWarning, match="asked the LLM that it works for"):
        assert llm.generate([1], max_tokens=3, drafters=[drafter]).token_ids == tuple(counted(1, 3))


def test_closing_ends_what_runs_in_other_threads_with_an_error() -> None:
    target = SteppedTarget()
    llm = LLM.from_target(target, drafters="none")
    with ThreadPoolExecutor(3) as threads:
        running = [threads.submit(llm.generate, [i], max_tokens=9) for i in range(2)]
        target.waits.wait(60)
        closing = threads.submit(llm.close)
        has_mail(llm)
        target.let(3)
        for one in running:
            with pytest.raises(StateError, match=r"was closed while it decoded|is closed"):
                one.result(60)
        closing.result(60)
    assert target.num_held == 0
    assert "paceline-engine" not in [t.name for t in threading.enumerate() if t is llm._runtime.thread._thread]


# Conversations

TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% if mood %}mood={{ mood }};{% endif %}"
    "{% for m in messages %}{% if m.role == 'robot' %}{{ raise_exception('no robots') }}{% endif %}"
    "{{ m.role }}:{{ m.content }}{% if not loop.last or m.role != 'assistant' %}{{ '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
SYSTEM, USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory):
    folder = copied(tmp_path_factory.mktemp("talker") / "model")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    with LLM(folder, cache_tokens=1280) as llm:
        yield llm


CONVERSATIONS = {
    "a system message": ([SYSTEM, USER], {}, "system:Be brief.\nuser:Hello\nassistant:"),
    "an assistant's beginning": ([USER, {"role": "assistant", "content": "Hi, I"}], {}, "user:Hello\nassistant:Hi, I"),
    "parts of text": (
        [{"role": "user", "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "two"}]}],
        {},
        "user:One\ntwo\nassistant:",
    ),
    "tools": (
        [USER],
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        '[{"type": "function", "function": {"name": "f"}}]user:Hello\nassistant:',
    ),
    "the template's own": ([USER], {"chat_template_kwargs": {"mood": "good"}}, "mood=good;user:Hello\nassistant:"),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_conversation_is_read_through_the_models_template(talker: LLM, name: str) -> None:
    messages, options, text = CONVERSATIONS[name]
    out = talker.chat(messages, max_tokens=6, **options)
    assert talker.tokenizer.decode(out.origin.prompt_token_ids) == text
    assert talker.generate(list(out.origin.prompt_token_ids), max_tokens=6).token_ids == out.token_ids


def test_conversations_stream_come_in_batches_and_in_coroutines(talker: LLM) -> None:
    how = SamplingParams(max_tokens=8)
    expected = talker.chat([USER], how)
    assert "".join(token.text for token in talker.chat([USER], how, stream=True)) == expected.text
    assert talker.chat([[USER], [SYSTEM, USER]], how)[0].text == expected.text

    async def run() -> tuple[str, str]:
        stream = await talker.achat([USER], how, stream=True)
        return "".join([token.text async for token in stream]), (await talker.achat([USER], how)).text

    assert asyncio.run(run()) == (expected.text, expected.text)


REFUSED = {
    "no template": ([{"role": "robot", "content": "x"}], "no robots"),
    "a picture": ([{"role": "user", "content": [{"type": "image_url"}]}], r"messages\[0\].content\[0\] is 'image_url'"),
    "no role": ([{"content": "x"}], r"messages\[0\] is .*; allowed: a mapping with 'role' and 'content'"),
    "nothing": ([], "messages is empty"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_conversation_that_cannot_be_read_is_refused_in_words(talker: LLM, name: str) -> None:
    messages, words = REFUSED[name]
    with pytest.raises(RequestError, match=words):
        talker.chat(messages)


def test_a_model_without_a_template_says_so(bundled: LLM) -> None:
    with pytest.raises(RequestError, match="no chat template; allowed: generate with a plain prompt"):
        bundled.chat([USER])
