"""The draft model's cache: whatever was accepted, rejected or not asked for, drafts are those of a fresh reading."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

import paceline
from paceline.bundled import DEFAULT_DRAFT, bundled_path
from paceline.drafters import named
from paceline.drafters.model import ModelDrafter
from paceline.engine.request import NO_HINTS, DraftLimits, Environment, Request, StepOutcome, Token
from paceline.engine.tree import DraftTree
from paceline.options import Call
from paceline.pacing import FixedPacer
from paceline.params import SamplingParams

PROMPT = "Once upon a time, there was a little"


@pytest.fixture(scope="module")
def drafter(bundled: paceline.LLM) -> ModelDrafter:
    made = bundled._runtime.resolve("model")[0]
    assert isinstance(made, ModelDrafter)
    return made


def proposed(drafter: ModelDrafter, request: Request, depth: int) -> DraftTree:
    [tree] = drafter.propose([request], [DraftLimits(14, depth)])
    return tree


def deepest_path(tree: DraftTree, rng: np.random.Generator) -> list[int]:
    """A path from the root down to some leaf."""
    node = int(rng.integers(len(tree)))
    path: list[int] = []
    while node >= 0:
        path.append(node)
        node = tree.parents[node]
    return path[::-1]


def decode_with(drafter: ModelDrafter, llm: paceline.LLM, seed: int, temperature: float) -> int:
    """Steps with random verdicts, each proposal against that of a reading from the start; how many were compared."""
    rng = np.random.default_rng(seed)
    params, ids = SamplingParams(max_tokens=150, temperature=temperature, seed=seed), llm.encode(PROMPT)
    factory = llm._runtime.factory
    [request] = factory.requests(ids, Call(params), [], NO_HINTS)
    drafter.start(request)
    compared = 0
    try:
        for _ in range(12):
            depth = int(rng.integers(1, 7))
            tree = proposed(drafter, request, depth)
            again = SamplingParams(max_tokens=9, temperature=temperature, seed=seed)
            [fresh] = factory.requests(request.tokens, Call(again), [], NO_HINTS)
            drafter.start(fresh)
            expected = proposed(drafter, fresh, depth)
            drafter.finish(fresh)
            assert (tree.tokens, tree.parents) == (expected.tokens, expected.parents)
            assert tree.scores == pytest.approx(expected.scores, abs=0.02)  # reading and decoding may round differently
            compared += len(tree)
            path = deepest_path(tree, rng)[: int(rng.integers(0, 5))]
            said = [*(tree.tokens[node] for node in path), int(rng.integers(300, 4000))]
            request.tokens += said
            tokens = tuple(Token(token, "", "", 0.0, 0.0) for token in said)
            drafter.observe(StepOutcome(request, tree, tuple(path), tokens, np.zeros((1, 1), np.float32)))
            if rng.random() < 0.3:  # a step in which it was not asked
                request.tokens += rng.integers(300, 4000, int(rng.integers(1, 4))).tolist()
    finally:
        drafter.finish(request)
    return compared


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_drafts_after_any_verdicts_are_those_of_a_fresh_reading(
    drafter, bundled, seed: int, temperature: float
) -> None:
    assert decode_with(drafter, bundled, seed, temperature) > 50
    assert not drafter._fed


FAULTS = {
    "the first rows kept instead of the accepted": lambda path: np.arange(len(path)),
    "a rejected row kept": lambda path: np.append(path, path[-1] + 1 if len(path) else 0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_cache_of_wrong_content_is_noticed(drafter, bundled, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    pool = type(drafter._attached().decoder.pool)
    keep = pool.keep_path
    monkeypatch.setattr(pool, "keep_path", lambda self, sequence, path: keep(self, sequence, FAULTS[fault](path)))
    with pytest.raises(AssertionError):
        sum(decode_with(drafter, bundled, seed, 0.0) for seed in (1, 2, 3))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_under_a_grammar_the_first_tokens_are_allowed_ones(
    bundled: paceline.LLM, drafter: ModelDrafter, temperature: float
) -> None:
    params = SamplingParams(max_tokens=40, temperature=temperature, seed=3, regex="[Qqx]{3,30}")
    [request] = bundled._runtime.factory.requests(bundled.encode(PROMPT), Call(params), [], NO_HINTS)
    assert request.sampler.grammar is not None
    allowed = np.flatnonzero(request.sampler.grammar.mask())
    drafter.start(request)
    try:
        tree = proposed(drafter, request, 3)
    finally:
        drafter.finish(request)
    roots = [token for token, parent in zip(tree.tokens, tree.parents, strict=True) if parent < 0]
    assert roots
    assert set(roots) <= set(allowed.tolist())


@pytest.fixture(scope="module")
def in_memory() -> PreTrainedModel:
    """The bundled draft model, as a user of transformers has it."""
    return AutoModelForCausalLM.from_pretrained(bundled_path(DEFAULT_DRAFT)).eval()


def random_model(**changes: int) -> PreTrainedModel:
    """A model like the bundled draft model that knows nothing."""
    torch.manual_seed(3)
    config = AutoConfig.from_pretrained(bundled_path(DEFAULT_DRAFT))
    for name, value in changes.items():
        setattr(config, name, value)
    return AutoModelForCausalLM.from_config(config).eval()


def attached(llm: paceline.LLM, **options: object) -> ModelDrafter:
    made = ModelDrafter(**options)
    made.attach(llm._runtime.environment)
    return made


def first_draft(llm: paceline.LLM, drafter: ModelDrafter) -> DraftTree:
    [request] = llm._runtime.factory.requests(llm.encode(PROMPT), Call(SamplingParams(max_tokens=9)), [], NO_HINTS)
    drafter.start(request)
    try:
        return proposed(drafter, request, 4)
    finally:
        drafter.finish(request)


def test_a_model_in_memory_drafts_as_its_folder_does(bundled: paceline.LLM, in_memory: PreTrainedModel) -> None:
    ours, same = attached(bundled, path=in_memory), attached(bundled)
    tree = first_draft(bundled, ours)
    assert len(tree) > 3
    assert tree == first_draft(bundled, same)


def test_a_model_in_memory_stays_as_it_is_and_its_weights_are_shared(
    bundled: paceline.LLM, in_memory: PreTrainedModel
) -> None:
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        before = in_memory(ids).logits
        modules = [type(module) for module in in_memory.modules()]
        made = attached(bundled, path=in_memory)
        first_draft(bundled, made)
        assert torch.equal(in_memory(ids).logits, before)
    assert [type(module) for module in in_memory.modules()] == modules
    assert in_memory.config._attn_implementation == "sdpa"
    norm = made._attached().decoder.model.get_submodule("model.norm")
    assert norm.weight.data_ptr() == in_memory.get_submodule("model.norm").weight.data_ptr()


def test_a_model_in_memory_is_compared_by_size(bundled: paceline.LLM) -> None:
    with pytest.raises(paceline.ModelError, match="ForCausalLM has a vocabulary of 4000, the target one"):
        attached(bundled, path=random_model(vocab_size=4000))
    assert attached(bundled, path=random_model())._attached()


def test_what_is_no_model_is_refused(bundled: paceline.LLM) -> None:
    with pytest.raises(
        paceline.ConfigError, match="model: path is a Linear; allowed: a folder, a name or a PreTrained"
    ):
        attached(bundled, path=torch.nn.Linear(2, 2))


def test_a_tilde_is_the_home_folder(bundled: paceline.LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bundled_path(DEFAULT_DRAFT)
    assert folder is not None
    shutil.copytree(folder, tmp_path / "a,b=c draft")
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("~/a,b=c draft", Path("~/a,b=c draft")):
        assert first_draft(bundled, attached(bundled, path=path)) == first_draft(bundled, attached(bundled))


def test_without_a_path_the_model_known_for_the_target_drafts(bundled: paceline.LLM) -> None:
    inner, size = bundled._runtime.environment.tokenizer, bundled._runtime.environment.vocab_size
    made = ModelDrafter()
    with pytest.raises(paceline.ModelError, match=r"no model in the folder '\./nowhere'"):
        made.attach(Environment(inner, size, "cpu", "./nowhere"))
    with pytest.raises(paceline.ModelError, match="given as a"):
        made.attach(Environment(inner, size, "cpu", random_model(vocab_size=4000)))


def test_load_takes_a_draft_model_and_it_is_an_automatic_drafter(in_memory: PreTrainedModel) -> None:
    target = random_model()
    with paceline.load(target, draft_model=target, drafters="none") as llm:
        prompt = [5, 6, 7, 8]
        plain = llm.generate(prompt, max_tokens=24)
        drafted = llm.generate(prompt, max_tokens=24, drafters="auto", pacer=FixedPacer(7))
    assert drafted.token_ids == plain.token_ids
    assert drafted.stats.drafters["model"].num_accepted_draft_tokens > 0


@pytest.mark.parametrize("order", ["the good one first", "the bad one first"])
def test_two_draft_models_have_names_stats_and_credit_of_their_own(
    forced: paceline.LLM, in_memory: PreTrainedModel, order: str
) -> None:
    models = {"good": in_memory, "bad": random_model()}
    names: dict[str, str] = {}
    drafters = []
    for which in ("good", "bad") if order == "the good one first" else ("bad", "good"):
        drafters.append(named(ModelDrafter(path=models[which], depth=4), names.values()))
        names[which] = drafters[-1].name
    assert sorted(names.values()) == ["model", "model-2"]
    plain = forced.generate(PROMPT, max_tokens=60, drafters="none")
    drafted = forced.generate(PROMPT, max_tokens=60, drafters=drafters)
    assert drafted.token_ids == plain.token_ids
    stats = drafted.stats.drafters
    assert set(stats) == set(names.values())
    good, bad = stats[names["good"]], stats[names["bad"]]
    assert good.num_proposals == bad.num_proposals == drafted.stats.num_steps
    assert good.num_accepted_draft_tokens > 10 * bad.num_accepted_draft_tokens
    said = [token.source for token in drafted.tokens]
    assert said.count(names["good"]) == good.num_accepted_draft_tokens
    assert said.count(names["bad"]) == bad.num_accepted_draft_tokens
    assert bad.num_draft_tokens > 0
