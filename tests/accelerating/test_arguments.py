"""What transformers' generate takes and returns beside greedy tokens."""

from __future__ import annotations

import threading
import time
import warnings
from functools import partial
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerFast,
    StoppingCriteriaList,
    TextIteratorStreamer,
)
from transformers.generation.stopping_criteria import MaxLengthCriteria
from transformers.generation.streamers import BaseStreamer

import paceline
from accelerating.conftest import ENDS, Pair, batch
from accelerating.same import own
from exactness import translators
from models.families import VOCAB, tiny
from paceline.bundled import bundled_path


class Puts(BaseStreamer):
    """What a streamer is told, in order."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def put(self, value: torch.Tensor) -> None:
        self.told.append(value.tolist())

    def end(self) -> None:
        self.told.append("end")


@pytest.mark.parametrize("lengths", [(7,), (7, 3, 5)])
def test_a_streamer_is_told_what_transformers_tells_it(pair: Pair, lengths: tuple[int, ...]) -> None:
    inputs = batch(*lengths, seed=1)
    ours, theirs = Puts(), Puts()
    call = {"max_new_tokens": 15, "eos_token_id": ENDS, "pad_token_id": 0}
    pair.model.generate(**inputs, **call, streamer=ours)
    own(pair.model, **inputs, **call, streamer=theirs)
    assert ours.told == theirs.told


def test_a_streamer_that_fails_ends_the_call(pair: Pair) -> None:
    class Fails(Puts):
        def put(self, value: torch.Tensor) -> None:
            super().put(value)
            if len(self.told) > 2:
                raise OSError("nobody listens")

    with pytest.raises(OSError, match="nobody listens"):
        pair.model.generate(**batch(5), max_new_tokens=500, streamer=Fails())
    pair.assert_same(batch(5), max_new_tokens=5)


def tokenizer() -> PreTrainedTokenizerFast:
    words = {f"w{i}": i for i in range(VOCAB)}
    inner = Tokenizer(models.WordLevel(words, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="w0")


def test_text_streams_while_another_thread_generates(pair: Pair) -> None:
    streamer = TextIteratorStreamer(tokenizer(), skip_prompt=True)
    inputs = batch(4)
    call = {**inputs, "max_new_tokens": 9, "pad_token_id": 0}
    thread = threading.Thread(target=pair.model.generate, kwargs={**call, "streamer": streamer})
    thread.start()
    text = "".join(streamer)
    thread.join()
    assert text == tokenizer().decode(own(pair.model, **call)[0, 4:])


def test_a_dictionary_holds_scores_logits_and_a_cache(pair: Pair) -> None:
    inputs = batch(8, 3)
    call = {"max_new_tokens": 10, "eos_token_id": ENDS, "pad_token_id": 2, "repetition_penalty": 1.3}
    call |= {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    ours, theirs = pair.model.generate(**inputs, **call), own(pair.model, **inputs, **call)
    assert type(ours) is type(theirs)
    assert torch.equal(ours.sequences, theirs.sequences)
    new = ours.sequences[:, 8:]
    for name in ("scores", "logits"):
        assert len(ours[name]) == len(theirs[name]) == new.shape[1]
        for place, (one, other) in enumerate(zip(ours[name], theirs[name], strict=True)):
            assert one.shape == other.shape
            assert one.dtype == other.dtype
            for row in range(2):
                has_ended = any(token in ENDS for token in new[row, :place].tolist())
                wanted = torch.full((VOCAB,), -torch.inf) if has_ended else other[row]
                if has_ended:
                    wanted[2] = 0.0  # the padding is certain
                torch.testing.assert_close(one[row], wanted, atol=1e-4, rtol=1e-4)
    assert ours.attentions is theirs.attentions is None
    assert ours.cache.get_seq_length() == theirs.cache.get_seq_length()
    for one, other in zip(ours.cache.layers, theirs.cache.layers, strict=True):  # of padding a forward makes anything
        torch.testing.assert_close(one.keys[:, :, 5:], other.keys[:, :, 5:], atol=1e-4, rtol=1e-4)
    gone_on = pair.model.generate(**inputs, **{**call, "use_cache": False})
    assert gone_on.cache is None


def assert_close(one: Any, other: Any, first: int) -> None:
    """Nested tuples of tensors; of what padding's rows hold a forward makes anything."""
    if isinstance(one, tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_close(a, b, first)
    elif one is not None:
        assert one.shape == other.shape
        row = slice(first if one.shape[-2] > first else 0, None)
        torch.testing.assert_close(one[..., row, :], other[..., row, :], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("use_cache", [True, False])
def test_attentions_and_hidden_states_are_those_of_each_step(pair: Pair, use_cache: bool) -> None:
    inputs, told = batch(6, 4), {"output_attentions": True, "output_hidden_states": True}
    call = {**told, "max_new_tokens": 5, "return_dict_in_generate": True, "use_cache": use_cache, "pad_token_id": 0}
    ours, theirs = pair.model.generate(**inputs, **call), own(pair.model, **inputs, **call)
    assert_close(ours.attentions, theirs.attentions, 2)
    assert_close(ours.hidden_states, theirs.hidden_states, 2)


def test_those_of_an_encoder_decoder() -> None:
    model = paceline.accelerate(translators.build("bart"), cache_tokens=1024)
    model.set_attn_implementation("eager")
    ids = torch.randint(3, 110, (2, 7), generator=torch.Generator().manual_seed(1))
    asked = {"output_attentions": True, "output_hidden_states": True, "return_dict_in_generate": True}
    ours, theirs = (generate(ids, max_new_tokens=4, **asked) for generate in (model.generate, partial(own, model)))
    parts = ("encoder_attentions", "decoder_attentions", "cross_attentions", "encoder_hidden_states")
    for part in (*parts, "decoder_hidden_states"):
        assert ours[part] is not None
        assert_close(ours[part], theirs[part], 0)
    paceline.unaccelerate(model)


def test_draws_follow_torchs_seed_and_no_draft(pair: Pair) -> None:
    inputs = batch(6, 2)
    call = {"max_new_tokens": 12, "do_sample": True, "top_k": 20, "top_p": 0.9, "num_return_sequences": 2}

    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        found: torch.Tensor = pair.model.generate(**inputs, **call, temperature=1.4, pad_token_id=0)
        return found

    pair.told.tell([])
    plain = drawn(1)
    assert plain.shape == (4, 18)
    assert len({tuple(row) for row in plain.tolist()}) == 4
    pair.told.tell([text[0 if i < 2 else 4 :].tolist() for i, text in enumerate(plain)])
    assert torch.equal(drawn(1), plain)
    assert not torch.equal(drawn(2), plain)


def test_draws_have_the_law_of_transformers_scores(pair: Pair) -> None:
    """The first token's, by a chi-squared test over the tokens that temperature, top-k and min-p leave."""
    call = {"max_new_tokens": 1, "do_sample": True, "temperature": 1.5, "top_k": 6, "min_p": 0.05, "pad_token_id": 0}
    inputs, count = batch(5, seed=3), 500
    told = own(pair.model, **inputs, **call, return_dict_in_generate=True, output_scores=True)
    law = torch.softmax(told.scores[0][0], -1)
    torch.manual_seed(0)
    found = pair.model.generate(**inputs, **call, num_return_sequences=count)[:, -1]
    counts = torch.bincount(found, minlength=VOCAB).double()
    assert not counts[law == 0].any()
    kept, wanted = counts[law > 0], law[law > 0].double() * count
    assert float(((kept - wanted) ** 2 / wanted).sum()) < 27.9  # exceeded once in 5 * 10**4 with 5 degrees


def test_settings_go_before_those_of_the_model(pair: Pair) -> None:
    inputs, kept = batch(5), pair.model.generation_config
    try:
        pair.model.generation_config = GenerationConfig(max_new_tokens=4, suppress_tokens=[7], pad_token_id=1)
        assert pair.assert_same(inputs).shape[1] == 9
        assert pair.assert_same(inputs, max_new_tokens=6).shape[1] == 11
        given = GenerationConfig(max_new_tokens=3)
        assert pair.assert_same(inputs, generation_config=given).shape[1] == 8
        assert given.suppress_tokens is None
    finally:
        pair.model.generation_config = kept


def test_stop_strings_need_a_tokenizer_as_ever(pair: Pair) -> None:
    inputs, words = batch(4, 2), AutoTokenizer.from_pretrained(bundled_path("paceline-tiny"))
    text = pair.assert_same(inputs, max_new_tokens=12, eos_token_id=130, pad_token_id=0)
    new = text[0, 4:].tolist()
    word = next(w for w in map(words.decode, new) if w.isascii() and w.isalnum())
    call = {"max_new_tokens": 12, "stop_strings": [word], "eos_token_id": 130, "pad_token_id": 0}
    found = pair.model.generate(**inputs, **call, tokenizer=words)
    assert torch.equal(found, own(pair.model, **inputs, **call, tokenizer=words))
    assert words.decode(found[0, 4:]).count(word) == 1
    with pytest.raises(ValueError, match="tokenizer"):
        pair.model.generate(**inputs, **call)


class CountsCalls(LogitsProcessor):
    """A state, which one row alone may have: at every third call the likeliest token is forbidden."""

    def __init__(self) -> None:
        self.prefixes: list[list[int]] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        self.prefixes.append(input_ids[0].tolist())
        if len(self.prefixes) % 3 == 0:
            scores = scores.scatter(1, scores.argmax(-1, keepdim=True), -torch.inf)  # type: ignore[assignment]
        return scores


def test_one_row_may_have_any_processor_and_criterion(pair: Pair) -> None:
    inputs = batch(6)
    seen: list[list[tuple[int, ...]]] = [[], []]
    processors = [CountsCalls(), CountsCalls()]

    def call(i: int) -> dict[str, Any]:
        def criterion(ids: torch.Tensor, scores: Any, **_: Any) -> bool:
            seen[i].append((ids.shape[1], len(scores)))
            return ids.shape[1] == 13

        given = {"logits_processor": LogitsProcessorList([processors[i]]), "stopping_criteria": [criterion]}
        return {**given, "max_new_tokens": 20, "pad_token_id": 0}

    told = {"return_dict_in_generate": True, "output_scores": True, "use_cache": False}
    theirs = own(pair.model, **inputs, **call(0), **told).sequences
    pair.told.tell(theirs.tolist())
    ours = pair.model.generate(**inputs, **call(1), **told).sequences
    assert torch.equal(ours, theirs)
    assert processors[0].prefixes == processors[1].prefixes  # each prefix once, in order, and none behind the end
    assert seen[0] == seen[1]


def test_an_error_of_a_callers_own_is_raised_as_it_is(pair: Pair) -> None:
    def fails(ids: torch.Tensor, scores: Any, **_: Any) -> bool:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        pair.model.generate(**batch(4), max_new_tokens=4, stopping_criteria=StoppingCriteriaList([fails]))


def test_a_limit_of_a_callers_own_and_of_time(pair: Pair) -> None:
    inputs = batch(6, 4)
    short = StoppingCriteriaList([MaxLengthCriteria(9)])
    assert pair.assert_same(inputs, stopping_criteria=short, max_new_tokens=30).shape[1] == 9

    class Slow(LogitsProcessor):
        is_function_of_prefix = True

        def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
            time.sleep(0.01)
            return scores

    found = pair.model.generate(**inputs, max_time=0.1, max_new_tokens=400, logits_processor=[Slow()])
    assert 6 < found.shape[1] < 60


def test_an_assistant_and_lookup_draft(pair: Pair) -> None:
    inputs = batch(6, 3)
    assistant = tiny("llama", seed=7)
    wanted = own(pair.model, **inputs, max_new_tokens=10, pad_token_id=0)
    found = pair.model.generate(**inputs, max_new_tokens=10, pad_token_id=0, assistant_model=assistant)
    assert torch.equal(found, wanted)  # of several rows, which transformers does not assist
    made = pair.model.generate.llm.runtime.of_draft_model(assistant)  # type: ignore[attr-defined]
    assert [drafter.name for drafter in made] == ["model"]
    found = pair.model.generate(**inputs, max_new_tokens=10, pad_token_id=0, prompt_lookup_num_tokens=3)
    assert torch.equal(found, wanted)


def test_no_prompt_begins_with_the_first_token(pair: Pair) -> None:
    found = pair.model.generate(bos_token_id=1, max_new_tokens=5)
    assert torch.equal(found, own(pair.model, bos_token_id=1, max_new_tokens=5))
    inputs = batch(5)["input_ids"]
    assert torch.equal(pair.model.generate(inputs, max_new_tokens=5), own(pair.model, inputs, max_new_tokens=5))


def test_several_threads_share_a_model(pair: Pair) -> None:
    inputs = [batch(5 + i, seed=i) for i in range(3)]
    wanted = [own(pair.model, **one, max_new_tokens=9) for one in inputs]
    found: dict[int, torch.Tensor] = {}

    def work(i: int) -> None:
        found[i] = pair.model.generate(**inputs[i], max_new_tokens=9)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[i], wanted[i]) for i in range(3))
    assert isinstance(pair.model.generate.llm, paceline.LLM)  # type: ignore[attr-defined]


def test_embeddings_of_tokens_are_read_as_these(pair: Pair) -> None:
    ids = batch(6, 4)
    told = {"inputs_embeds": pair.model.get_input_embeddings()(ids["input_ids"]).detach()}
    told["attention_mask"] = ids["attention_mask"]
    call = {"max_new_tokens": 5, "pad_token_id": 0, "return_dict_in_generate": True, "output_hidden_states": True}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for given in (told, {**ids, **told}):
            ours, theirs = pair.model.generate(**given, **call), own(pair.model, **given, **call)
            assert torch.equal(ours.sequences, theirs.sequences)
            assert_close(ours.hidden_states, theirs.hidden_states, 2)


def test_a_returned_cache_is_gone_on_behind_and_with(pair: Pair) -> None:
    """As a chat does: the cache of the first turn, and the whole text of the second."""
    inputs, call = batch(6, 4), {"max_new_tokens": 5, "pad_token_id": 0}
    later = torch.tensor([[7, 8], [9, 10]])

    def turns(generate: Any) -> list[torch.Tensor]:
        first = generate(**inputs, **call, return_dict_in_generate=True)
        ids = torch.cat([first.sequences, later], -1)
        mask = torch.nn.functional.pad(inputs["attention_mask"], (0, 7), value=1)
        second = generate(input_ids=ids, attention_mask=mask, **call, cache=first.cache)
        return [second, *(layer.keys[:, :, 2:] for layer in first.cache.layers)]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = turns(pair.model.generate)
    theirs = turns(partial(own, pair.model))
    assert torch.equal(ours[0], theirs[0])
    for one, other in zip(ours[1:], theirs[1:], strict=True):  # the caller's, grown in place
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_cache_that_was_changed_or_holds_another_text_is_handed_over(pair: Pair) -> None:
    inputs, call = batch(6), {"max_new_tokens": 3, "pad_token_id": 0}
    kept = pair.model.generate(**inputs, **call, return_dict_in_generate=True)
    other = torch.cat([kept.sequences[:, :-1] * 0 + 5, kept.sequences], -1)
    with pytest.warns(paceline.HandedOverWarning, match="does not begin with the text"):
        pair.model.generate(other, **call, cache=kept.cache)
    kept = pair.model.generate(**inputs, **call, return_dict_in_generate=True)
    kept.cache.layers[0].keys.mul_(2.0)
    with pytest.warns(paceline.HandedOverWarning, match="as they were"):
        pair.model.generate(kept.sequences, **call, cache=kept.cache)
