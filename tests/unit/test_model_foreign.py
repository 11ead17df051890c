"""A draft model with another vocabulary: less of the bundled one's, in another order. It cuts texts elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

import paceline
from contract.keeping import DrafterContract
from paceline.bundled import DEFAULT_DRAFT, bundled_path
from paceline.drafters._draft_model.foreign import ForeignLevels, Retold, best_paths
from paceline.drafters.model import ModelDrafter
from paceline.engine.request import NO_HINTS, DraftLimits, Request, StepOutcome, Token
from paceline.engine.tree import DraftTree
from paceline.options import Call
from paceline.params import SamplingParams
from paceline.text.tokenizer import Tokenizer

KEPT = 1500  # of 4096 tokens; the first are bytes, then what is merged most
STORY = "Once upon a time, there was a little dog. One day the dog went to the park and"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled draft model with the first `KEPT` tokens of its vocabulary, the last first."""
    source, target = bundled_path(DEFAULT_DRAFT), tmp_path_factory.mktemp("foreign")
    assert source is not None
    says = json.loads((source / "tokenizer.json").read_text())
    order = {token: KEPT - 1 - index for token, index in says["model"]["vocab"].items() if index < KEPT}
    says["model"]["vocab"] = order
    says["model"]["merges"] = [pair for pair in says["model"]["merges"] if "".join(pair) in order]
    says["added_tokens"][0]["id"] = order["<|endoftext|>"]
    (target / "tokenizer.json").write_text(json.dumps(says))
    (target / "tokenizer_config.json").write_text((source / "tokenizer_config.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(source)
    rows = model.get_input_embeddings().weight.detach()[:KEPT].flip(0).clone()
    model.resize_token_embeddings(KEPT)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(rows)
    model.config.bos_token_id = model.config.eos_token_id = order["<|endoftext|>"]
    model.save_pretrained(target)
    return target


@pytest.fixture(scope="module")
def drafter(bundled: paceline.LLM, folder: Path) -> ModelDrafter:
    made = bundled._runtime.resolve(f"model:path={folder}")[0]
    assert isinstance(made, ModelDrafter)
    assert isinstance(made._levels, ForeignLevels)
    return made


class TestForeignModel(DrafterContract):
    @pytest.fixture
    def spec(self, folder: Path) -> str:
        return f"model:path={folder}"


def test_what_it_says_is_accepted(forced: paceline.LLM, folder: Path) -> None:
    out = forced.generate(STORY, max_tokens=80, drafters=[f"model:path={folder}"])
    assert out.stats.drafters["model"].num_accepted_draft_tokens > 30
    assert out.stats.num_steps < 50


def retold(drafter: ModelDrafter, request: Request) -> Retold:
    found = drafter._fed[request.id]
    assert isinstance(found, Retold)
    return found


def decode_with(drafter: ModelDrafter, llm: paceline.LLM, seed: int) -> int:
    """Steps with random verdicts; the draft model's text and its proposal against those of a fresh reading."""
    rng = np.random.default_rng(seed)
    params, factory = SamplingParams(max_tokens=150), llm._runtime.factory
    [request] = factory.requests(llm.encode(STORY), Call(params), [], NO_HINTS)
    drafter.start(request)
    left = [token for letter in " playing with étoile 日本 🙂 there." for token in llm.encode(letter)]
    compared = 0
    try:
        for _ in range(12):
            limits = DraftLimits(int(rng.integers(1, 30)), int(rng.integers(1, 9)))
            [tree] = drafter.propose([request], [limits])
            [fresh] = factory.requests(request.tokens, Call(SamplingParams(max_tokens=9)), [], NO_HINTS)
            drafter.start(fresh)
            [expected] = drafter.propose([fresh], [limits])
            assert retold(drafter, request).own.tokens == retold(drafter, fresh).own.tokens
            drafter.finish(fresh)
            assert (tree.tokens, tree.parents) == (expected.tokens, expected.parents)
            assert tree.scores == pytest.approx(expected.scores, abs=0.02)
            compared += len(tree)
            path = best_paths(tree, 9)[-1][: int(rng.integers(0, 6))] if rng.random() < 0.5 and len(tree) else []
            count = int(rng.integers(1, 4))
            spelt, left = left[:count], left[count:]
            said = [*(tree.tokens[node] for node in path), *spelt]
            request.tokens += said
            tokens = tuple(Token(token, "", "", 0.0, 0.0) for token in said)
            drafter.observe(StepOutcome(request, tree, tuple(path), tokens, np.zeros((1, 1), np.float32)))
    finally:
        drafter.finish(request)
    return compared


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_drafts_after_any_verdicts_are_those_of_a_fresh_reading(drafter, bundled, seed: int) -> None:
    assert decode_with(drafter, bundled, seed) > 30
    assert not drafter._fed


def test_a_cache_that_is_not_taken_back_is_noticed(drafter, bundled, monkeypatch: pytest.MonkeyPatch) -> None:
    append = Retold._append

    def say_that_all_is_as_it_was(self: Retold, more: str, tokens: list[int]) -> int:
        return max(append(self, more, tokens), min(self.sequence.length, len(self.own.tokens) - 1))

    monkeypatch.setattr(Retold, "_append", say_that_all_is_as_it_was)
    with pytest.raises(AssertionError):
        sum(decode_with(drafter, bundled, seed) for seed in (1, 2, 3))


def test_rows_of_what_was_accepted_are_not_computed_again(drafter, bundled, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a text that goes on as was drafted, the cache keeps all but the tokens at its end, which may have changed."""
    [request] = bundled._runtime.factory.requests(
        bundled.encode(STORY), Call(SamplingParams(max_tokens=90)), [], NO_HINTS
    )
    drafter.start(request)
    try:
        [tree] = drafter.propose([request], [DraftLimits(20, 8)])
        fed = retold(drafter, request)
        before = fed.sequence.length
        request.tokens += [tree.tokens[node] for node in best_paths(tree, 1)[0]]
        drafter._attached().num_tokens(request, fed)
        assert before + 2 < fed.sequence.length < len(fed.own.tokens)
    finally:
        drafter.finish(request)


def test_a_text_beyond_its_context_is_left_alone(bundled: paceline.LLM, drafter: ModelDrafter) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drafter, "_max_length", 30)
        [request] = bundled._runtime.factory.requests(
            bundled.encode(STORY), Call(SamplingParams(max_tokens=9)), [], NO_HINTS
        )
        drafter.start(request)
        assert drafter.propose([request], [DraftLimits(9)]) == [DraftTree()]
        drafter.finish(request)


pieces = st.sampled_from(
    ["Once", " upon", " a time", ",", "\n\n", " É", "é", "日本", "🙂", "  ", "123", " the", "ing", "\t", "'s"]
)
texts = st.lists(pieces, min_size=1, max_size=30).map("".join)


@settings(max_examples=60)
@given(texts, st.integers(0, 200))
@example("🙂🙂 end", 2)
def test_a_text_is_continued_as_it_is_cut(bundled: paceline.LLM, text: str, cut: int) -> None:
    assert bundled.tokenizer is not None
    ids = bundled.encode(text)
    cut = cut % len(ids)
    whole = bundled.tokenizer.num_whole(ids[:cut])
    rest = bundled.tokenizer.text_behind(ids, whole)
    assert bundled.tokenizer.decode(ids[:whole]) + rest == text
    assert bundled.tokenizer.continued(ids[:cut], rest) == ids[cut:]


def test_where_texts_part_nothing_continues(bundled: paceline.LLM) -> None:
    tokenizer = bundled.tokenizer
    assert tokenizer is not None
    smile = bundled.encode("🙂")
    assert len(smile) > 1
    assert tokenizer.continued(smile[:1], "日") is None
    [a] = bundled.encode(" a")
    assert tokenizer.continued([a], "nimal") is None  # " animal" is one token, which has no border there


def test_without_a_tokenizer_another_vocabulary_is_refused(bundled: paceline.LLM, folder: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.save_pretrained(tmp_path)
    with pytest.raises(paceline.ModelError, match=r"of 1500, the target one of 4096, and its tokenizer is not known"):
        ModelDrafter(path=str(tmp_path)).attach(bundled._runtime.environment)


def test_a_model_in_memory_is_read_by_its_folders_tokenizer(bundled: paceline.LLM, folder: Path) -> None:
    made = ModelDrafter(path=AutoModelForCausalLM.from_pretrained(folder))
    made.attach(bundled._runtime.environment)
    assert isinstance(made._levels, ForeignLevels)


def test_leading_spaces_of_sentencepiece_are_kept() -> None:
    from tokenizers import Tokenizer as Inner
    from tokenizers import decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    vocab = {piece: index for index, piece in enumerate(["<unk>", "▁", "a", "b", "▁a", "▁ab", "<0xC3>", "<0xA9>"])}
    merges = [("▁", "a"), ("▁a", "b")]
    inner = Inner(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    fallback = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    inner.decoder = decoders.Sequence(fallback)
    tokenizer = Tokenizer(PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>"))
    ids = tokenizer.encode("ab a é ab")
    assert ids == [5, 4, 1, 6, 7, 5]
    assert tokenizer.text_behind(ids[:2], 1) == " a"
    assert tokenizer.num_whole(ids[:4]) == 3
    for cut in (1, 2, 4):
        assert tokenizer.continued(ids[:cut], tokenizer.text_behind(ids, tokenizer.num_whole(ids[:cut]))) == ids[cut:]
