"""The promise on the bundled pair: the main job, whichever drafters run, alone and in a batch, in both dtypes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import paceline
from contract.keeping import SCENES
from exactness.greedy import assert_greedy
from paceline.bundled import ROOT
from paceline.drafters import automatic
from paceline.pacing import AdaptivePacer, CostTable, FixedPacer, ForwardCost

PROMPT = "Once upon a time"
OTHERS = [
    "Lily and Tom went to the park.",
    "Command: add this song",
    "Question: A man has 3 cats.",
    "ROMEO:\n",
]
SHARED = Path(__file__).parents[3] / "shared" / "models" / "stories260K"


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def llm(request: pytest.FixtureRequest) -> Iterator[paceline.LLM]:
    with paceline.load(dtype=request.param) as loaded:
        yield loaded


def bits_of(output: paceline.Output) -> tuple:
    return output.token_ids, output.text, [t.logprob for t in output.tokens]


@pytest.mark.parametrize("pacing", ["paced", "fixed"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("scene", SCENES)
def test_drafters_pacing_and_batches_change_no_bit(
    llm: paceline.LLM, scene: str, temperature: float, pacing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"max_tokens": 30, "temperature": temperature, "seed": 3, **SCENES[scene]}
    plain = bits_of(llm.generate(PROMPT, drafters="none", **options))
    each = [[name] for name in automatic(llm._runtime.environment)]
    if pacing == "fixed":  # as the contract of drafters has it for each of them
        monkeypatch.setattr(llm.engine, "pacer", FixedPacer(7))
        each = []
    for drafters in ("auto", *each):
        assert bits_of(llm.generate(PROMPT, drafters=drafters, **options)) == plain
        inside = llm.generate([*OTHERS[:2], PROMPT, *OTHERS[2:]], drafters=drafters, **options)[2]
        assert bits_of(inside) == plain


def test_a_pacer_to_whom_rows_are_free_changes_no_bit(llm: paceline.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """It drafts on any machine; with measured costs, that is for the machine to say."""
    costs = CostTable({rows: ForwardCost(1.0, 0.0) for rows in llm.target.row_counts})
    monkeypatch.setattr(llm.engine, "pacer", AdaptivePacer(costs, max_slowdown=10.0))
    options = {"max_tokens": 50, "temperature": 0.7, "seed": 4}
    prompts = [PROMPT, *OTHERS]
    plain = [bits_of(llm.generate(prompt, drafters="none", **options)) for prompt in prompts]
    drafted = llm.generate(prompts, drafters="auto", **options)
    assert [bits_of(output) for output in drafted] == plain
    assert sum(output.stats.num_draft_tokens for output in drafted) > 0


def test_streaming_changes_no_token(llm: paceline.LLM) -> None:
    options = {"max_tokens": 33, "temperature": 0.8, "seed": 5}
    whole = llm.generate(PROMPT, **options)
    tokens = list(llm.stream(PROMPT, **options))
    assert tuple(t.id for t in tokens) == whole.token_ids
    assert "".join(t.text for t in tokens) == whole.text


def test_samples_differ_and_each_is_the_one_its_index_gives(llm: paceline.LLM) -> None:
    options = {"max_tokens": 24, "temperature": 1.0, "seed": 9}
    three = llm.generate([PROMPT], n=3, **options)
    assert len({o.token_ids for o in three}) == 3
    assert three[0].token_ids == llm.generate(PROMPT, **options).token_ids


@pytest.mark.parametrize(
    "folder",
    [
        ROOT / "paceline-tiny",
        pytest.param(SHARED, marks=pytest.mark.skipif(not SHARED.exists(), reason="the shared folder is not here")),
    ],
    ids=["bundled", "stories260K"],
)
def test_greedy_fp32_is_what_transformers_generates(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with paceline.load(str(folder), dtype="float32") as llm:
        for prompt in (PROMPT, "The dog and the cat"):
            ours = llm.generate(prompt, max_tokens=90, ignore_eos=True).token_ids
            assert_greedy(model, tokenizer(prompt).input_ids, 90, ours)


def test_a_continued_request_meets_the_same_noise(llm: paceline.LLM) -> None:
    """50 tokens and 50 more are 100 at once, up to rounding: prefill and decoding may round differently."""
    options = {"temperature": 1.0, "seed": 21, "ignore_eos": True}
    ids = llm.tokenizer.encode(PROMPT)
    whole = llm.generate(ids, max_tokens=60, **options).token_ids
    first = llm.generate(ids, max_tokens=30, **options).token_ids
    rest = llm.generate([*ids, *first], max_tokens=30, **options).token_ids
    assert (*first, *rest)[:31] == whole[:31]


def test_the_default_run_reports_where_its_time_and_memory_went(bundled: paceline.LLM) -> None:
    stats = bundled.generate(PROMPT, max_tokens=12).stats
    assert stats.num_emitted_tokens == 12
    assert stats.numerics["path"].startswith(("native-", "onednn-packed", "stock"))
    assert 0 < stats.memory["weight_bytes"] < 200e6
    assert stats.memory["peak_bytes"] > stats.memory["weight_bytes"]
