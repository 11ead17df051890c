"""What transformers' generate takes and returns beside greedy tokens."""

from __future__ import annotations

import threading
import time
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


def test_an_end_that_no_token_is(pair: Pair) -> None:
    """As who wants no end gives one."""
    assert pair.assert_same(batch(5), max_new_tokens=6, eos_token_id=-1, pad_token_id=0).shape[1] == 11


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
