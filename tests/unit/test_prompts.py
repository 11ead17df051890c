"""Prompts in every form that people hold them in, and what is no prompt."""

from __future__ import annotations

import array
import collections
import copy
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BatchEncoding, PreTrainedTokenizerBase

from paceline import LLM, RequestError
from paceline.text.prompts import as_prompt, as_prompts

IDS = [7, 300, 7, 12, 9]


class Text(str):
    """A string of somebody's own, which also prints itself in a way of its own."""

    def __str__(self) -> str:
        return "printed"


HOLDERS_OF_IDS: dict[str, Callable[[list[int]], Any]] = {
    "list": list,
    "tuple": tuple,
    "deque": collections.deque,
    "iterator": iter,
    "generator": lambda ids: (t for t in ids),
    "array": lambda ids: array.array("l", ids),
    "numpy int64": lambda ids: np.array(ids, np.int64),
    "numpy int32": lambda ids: np.array(ids, np.int32),
    "numpy uint16": lambda ids: np.array(ids, np.uint16),
    "numpy objects": lambda ids: np.array(ids, object),
    "list of numpy integers": lambda ids: [np.int32(t) for t in ids],
    "tensor": lambda ids: torch.tensor(ids, dtype=torch.int64),
    "tensor int32": lambda ids: torch.tensor(ids, dtype=torch.int32),
    "list of scalar tensors": lambda ids: [torch.tensor(t) for t in ids],
    "every other of a tensor": lambda ids: torch.tensor(ids).repeat_interleave(2)[::2],
    "vLLM's mapping": lambda ids: {"prompt_token_ids": ids},
    "vLLM's mapping with the text": lambda ids: {"prompt": "the text", "prompt_token_ids": np.array(ids)},
    "encoding": lambda ids: BatchEncoding({"input_ids": ids, "attention_mask": [1] * len(ids)}),
    "vLLM's mapping with a text that is None": lambda ids: {"prompt": None, "prompt_token_ids": ids},
    "dict with input_ids": lambda ids: {"input_ids": torch.tensor(ids)},
}
HOLDERS_OF_TEXT: dict[str, Callable[[str], Any]] = {
    "str": str,
    "subclass": Text,
    "numpy string": np.str_,
    "numpy array of no dimensions": np.array,
    "vLLM's mapping": lambda text: {"prompt": text},
    "vLLM's mapping of a subclass": lambda text: {"prompt": np.str_(text)},
}
HOLDERS_OF_PROMPTS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "iterator": iter,
    "generator": lambda prompts: (p for p in prompts),
    "deque": collections.deque,
    "values of a dict": lambda prompts: dict(enumerate(prompts)).values(),
}

ids = st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=9)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=9)
held = st.one_of(
    st.tuples(ids, st.sampled_from(list(HOLDERS_OF_IDS.values()))),
    st.tuples(texts, st.sampled_from(list(HOLDERS_OF_TEXT.values()))),
)


def exactly(prompt: object) -> bool:
    """Whether a prompt consists of plain strings and integers, whatever it came from."""
    return type(prompt) is str or (type(prompt) is list and all(type(t) is int for t in prompt))


@pytest.mark.parametrize("holder", HOLDERS_OF_IDS)
def test_token_ids_are_one_prompt_whatever_holds_them(holder: str) -> None:
    prompts, is_batch = as_prompts(HOLDERS_OF_IDS[holder](IDS))
    assert (prompts, is_batch) == ([IDS], False)
    assert exactly(prompts[0])
    assert as_prompt(HOLDERS_OF_IDS[holder](IDS)) == IDS


def test_a_range_is_a_prompt() -> None:
    assert as_prompts(range(3, 9, 2)) == ([[3, 5, 7]], False)


@pytest.mark.parametrize("holder", HOLDERS_OF_TEXT)
def test_a_text_is_one_prompt_whatever_holds_it(holder: str) -> None:
    prompts, is_batch = as_prompts(HOLDERS_OF_TEXT[holder]("naïve 日本"))
    assert (prompts, is_batch) == (["naïve 日本"], False)
    assert exactly(prompts[0])


@given(st.lists(held, min_size=1, max_size=6), st.sampled_from(list(HOLDERS_OF_PROMPTS)))
def test_several_prompts_of_any_kind_are_a_batch_in_their_order(drawn: list, holder: str) -> None:
    prompts, is_batch = as_prompts(HOLDERS_OF_PROMPTS[holder]([hold(prompt) for prompt, hold in drawn]))
    assert (prompts, is_batch) == ([prompt for prompt, _ in drawn], True)
    assert all(map(exactly, prompts))


@given(st.integers(1, 5), st.integers(1, 7), st.sampled_from([np.array, torch.tensor]), st.booleans())
def test_two_dimensions_are_a_batch_of_their_rows_also_if_there_is_one(rows: int, length: int, make, named) -> None:
    table = np.arange(rows * length).reshape(rows, length).tolist()
    value = {"input_ids": make(table)} if named else make(table)
    assert as_prompts(value) == (table, True)


def test_numpy_arrays_of_strings_are_a_batch() -> None:
    assert as_prompts(np.array(["a", "bc"])) == (["a", "bc"], True)


@given(st.lists(ids, min_size=1, max_size=5), st.sampled_from(["left", "right"]), st.sampled_from([np, torch, list]))
def test_padding_goes_by_the_attention_mask(prompts: list[list[int]], side: str, kind: Any) -> None:
    width = max(map(len, prompts))
    gaps = [[0] * (width - len(p)) for p in prompts]
    padded = [gap + p if side == "left" else p + gap for p, gap in zip(prompts, gaps, strict=True)]
    ones = [[1] * len(p) for p in prompts]
    masks = [gap + one if side == "left" else one + gap for one, gap in zip(ones, gaps, strict=True)]
    make = {np: np.array, torch: torch.tensor, list: list}[kind]
    assert as_prompts(BatchEncoding({"input_ids": make(padded), "attention_mask": make(masks)})) == (prompts, True)
    single = {"input_ids": make(padded[0]), "attention_mask": make(masks[0])}
    assert as_prompts(single) == (prompts[:1], False)


@pytest.mark.parametrize("value", [[], (), iter([]), np.zeros((0, 3), int), torch.zeros((0, 3), dtype=torch.int64)])
def test_no_prompts_are_an_empty_batch(value: object) -> None:
    assert as_prompts(value) == ([], True)


@pytest.mark.parametrize("value", [np.zeros(0, int), {"prompt_token_ids": []}, {"input_ids": []}], ids=str)
def test_a_prompt_without_tokens_is_no_empty_batch(value: object) -> None:
    assert as_prompts(value) == ([[]], False)


@pytest.mark.parametrize("value", [torch.tensor([IDS]), [IDS], {"input_ids": [IDS]}, (tuple(IDS),)], ids=str)
def test_where_one_prompt_is_wanted_a_batch_of_one_stands_for_it(value: object) -> None:
    assert as_prompt(value) == IDS


def test_tensors_of_one_row_in_a_list_are_a_prompt_each() -> None:
    assert as_prompts([torch.tensor([[1, 2]]), {"input_ids": np.array([[3]])}]) == ([[1, 2], [3]], True)


ALLOWED = "a string, token ids, or a mapping with 'prompt', 'prompt_token_ids' or 'input_ids'; or several of these"
HOLED = {"input_ids": [4, 5, 6], "attention_mask": [1, 0, 1]}
itself: list[Any] = []
itself.append(itself)
NO_PROMPTS = [
    (None, f"prompt is None; allowed: {ALLOWED}"),
    (3, f"prompt is 3; allowed: {ALLOWED}"),
    (1.5, f"prompt is 1.5; allowed: {ALLOWED}"),
    (True, f"prompt is True; allowed: {ALLOWED}"),
    (np.int64(3), f"prompt is 3; allowed: {ALLOWED}"),
    (torch.tensor(3), f"prompt is 3; allowed: {ALLOWED}"),
    (b"text", f"prompt is b'text'; allowed: {ALLOWED}"),
    (memoryview(b"text"), "prompt is <memory"),
    ({3, 4}, f"prompt is {{3, 4}}; allowed: {ALLOWED}"),
    (object, "prompt is <class 'object'>; allowed: "),
    (np.ndarray, "prompt is <class 'numpy.ndarray'>; allowed: "),
    ([None], f"prompt[0] is None; allowed: {ALLOWED}"),
    (["text", 3], f"prompt[1] is 3; allowed: {ALLOWED}"),
    (["text", b"x"], f"prompt[1] is b'x'; allowed: {ALLOWED}"),
    ([3, "text"], "prompt[1] is 'text'; allowed: a token id, which is an integer"),
    ([3, None], "prompt[1] is None; allowed: a token id, which is an integer"),
    ([3, 4.0], "prompt[1] is 4.0; allowed: a token id, which is an integer"),
    ([3.0, 4], "prompt[0] is 3.0; allowed: a token id, which is an integer"),
    ([True, 4], "prompt[0] is True; allowed: a token id, which is an integer"),
    ([3, np.bool_(True)], "prompt[1] is True; allowed: a token id, which is an integer"),
    ([3, torch.tensor(True)], "prompt[1] is True; allowed: a token id, which is an integer"),
    (np.array([3.0]), "prompt[0] is 3.0; allowed: a token id, which is an integer"),
    (torch.tensor([True]), "prompt[0] is True; allowed: a token id, which is an integer"),
    ([IDS, [4, 0.5]], "prompt[1][1] is 0.5; allowed: a token id, which is an integer"),
    ([3, int], "prompt[1] is <class 'int'>; allowed: a token id, which is an integer"),
    ([[IDS, IDS]], "prompt[0] is a batch of 2; allowed here: one prompt"),
    (np.zeros((2, 2, 2), int), "prompt[0] is a batch of 2; allowed here: one prompt"),
    ([[["text"]]], "prompt[0][0] is a batch of 1; allowed here: one prompt"),
    (itself, "prompt[0][0] is a batch of 1; allowed here: one prompt"),
    ({}, f"prompt is {{}}; allowed: {ALLOWED}"),
    ({"text": "x"}, f"prompt is {{'text': 'x'}}; allowed: {ALLOWED}"),
    ({1: "x"}, f"prompt is {{1: 'x'}}; allowed: {ALLOWED}"),
    (
        [{"role": "user", "content": "x"}],
        f"prompt[0] is {{'content': 'x', 'role': 'user'}}; allowed: {ALLOWED}; messages go to",
    ),
    ({"prompt": "x", "mm_processor_kwargs": {}}, "prompt has mm_processor_kwargs, which Paceline does not read; "),
    ({"prompt": "x", "multi_modal_data": {"audio": 0}}, "prompt['multi_modal_data'] is {'audio': 0}; allowed: a "),
    ({"prompt": "x", "images": 7}, "prompt['images'][0] is a int; allowed: a file's path, its bytes, a data: URL"),
    ({"prompt": [1], "images": "a.png"}, "prompt['prompt'] is [1]; allowed: a string beside pictures"),
    ({"input_ids": IDS, "pixel_values": [0.5]}, "prompt has pixel_values, which Paceline does not read; "),
    ({"prompt": IDS}, "prompt['prompt'] is [7, 300, 7, 12, 9]; allowed: a string"),
    ({"prompt_token_ids": "x"}, "prompt['prompt_token_ids'] is 'x'; allowed: token ids"),
    ({"prompt_token_ids": [IDS]}, "prompt[0] is [7, 300, 7, 12, 9]; allowed: a token id, which"),
    ({"prompt_token_ids": None}, f"prompt is {{'prompt_token_ids': None}}; allowed: {ALLOWED}"),
    ({"input_ids": 3}, "prompt['input_ids'] is 3; allowed: token ids"),
    ({"input_ids": ["x"]}, "prompt['input_ids'][0] is 'x'; allowed: token ids"),
    (HOLED, "prompt['attention_mask'] is [1, 0, 1]; allowed: ones, with zeros for padding before or after them"),
    ({"input_ids": [4, 5], "attention_mask": [1]}, "prompt['attention_mask'] is [1]; allowed: one entry for each of 2"),
    ({"input_ids": [[4]], "attention_mask": [1]}, "prompt['attention_mask'][0] is 1; allowed: one entry for each of 1"),
    ({"input_ids": [[4]], "attention_mask": []}, "prompt['attention_mask'] is []; allowed: one entry for each of 1"),
    ({"input_ids": [4], "attention_mask": [2]}, "prompt['attention_mask'] is [2]; allowed: ones, with zeros"),
    ({"input_ids": [4], "attention_mask": 1}, "prompt['attention_mask'] is 1; allowed: one entry for each of 1"),
    ("\ud800", "prompt is '\\ud800'; allowed: Unicode text"),
]


@pytest.mark.parametrize(("value", "message"), NO_PROMPTS, ids=[m[:60] for _, m in NO_PROMPTS])
def test_what_is_no_prompt_is_refused_with_what_is(value: object, message: str) -> None:
    with pytest.raises(RequestError, match=f"^{re.escape(message)}"):
        as_prompts(value)


def test_a_message_stays_short_and_names_the_argument() -> None:
    with pytest.raises(RequestError, match=r"^prediction\[1\] is 'x+\.\.\.x+'; allowed: a token id") as raised:
        as_prompt([4, "x" * 10_000], "prediction")
    assert len(str(raised.value)) < 120
    with pytest.raises(RequestError, match=r"^prediction is a batch of 2; allowed here: one prompt$"):
        as_prompt(["a", "b"], "prediction")


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.complex_numbers(),
)
keys = st.sampled_from(["prompt", "prompt_token_ids", "input_ids", "attention_mask", "role", "other"])
garbage = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3) | st.tuples(inner),
    max_leaves=9,
)


@given(garbage)
def test_anything_is_either_prompts_or_refused_in_our_own_words(value: object) -> None:
    try:
        prompts, is_batch = as_prompts(value)
    except RequestError as error:
        assert "; allowed" in str(error)  # noqa: PT017 - whether it is raised is not what is asked
    else:
        assert all(map(exactly, prompts))
        assert is_batch or len(prompts) == 1


def test_what_a_caller_raises_while_it_makes_prompts_is_its_own() -> None:
    def broken():
        yield "Once"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        as_prompts(broken())


def test_prompts_are_read_without_loading_torch_or_transformers() -> None:
    code = "import sys; from paceline.text import prompts; prompts.as_prompts(['a', [3]])"
    code += "; print({'torch', 'transformers'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


# As a user writes them.

TEXTS = ["Once upon a time", "The dog", "def add(a, b):"]


@pytest.fixture(scope="module")
def tokenizer(bundled: LLM) -> PreTrainedTokenizerBase:
    """The bundled model's tokenizer, with a padding token as most people set one."""
    assert bundled.tokenizer is not None
    own = copy.deepcopy(bundled.tokenizer.inner)
    own.pad_token = own.eos_token or own.convert_ids_to_tokens(0)
    return own


def tokens_of(outputs: Any) -> Any:
    return [o.token_ids for o in outputs] if isinstance(outputs, list) else outputs.token_ids


def test_the_tokenizers_own_answers_are_prompts(bundled: LLM, tokenizer: PreTrainedTokenizerBase) -> None:
    wanted = [bundled.generate(text, max_tokens=5).token_ids for text in TEXTS]
    for text, expected in zip(TEXTS, wanted, strict=True):
        assert tokens_of(bundled.generate(tokenizer(text), max_tokens=5)) == expected
        assert tokens_of(bundled.generate(tokenizer(text)["input_ids"], max_tokens=5)) == expected
        assert tokens_of(bundled.generate(tokenizer(text, return_tensors="pt"), max_tokens=5)) == [expected]
        assert tokens_of(bundled.generate(tokenizer(text, return_tensors="pt")["input_ids"], max_tokens=5)) == [
            expected
        ]
        assert tokens_of(bundled.generate(tokenizer(text, return_tensors="np").input_ids[0], max_tokens=5)) == expected
    assert tokens_of(bundled.generate(tokenizer(TEXTS), max_tokens=5)) == wanted
    for side in ("left", "right"):
        padded = tokenizer(TEXTS, padding=True, padding_side=side, return_tensors="pt")
        assert not padded["attention_mask"].all()
        assert tokens_of(bundled.generate(padded, max_tokens=5)) == wanted


def test_a_batch_may_mix_texts_ids_and_mappings(bundled: LLM, tokenizer: PreTrainedTokenizerBase) -> None:
    wanted = [bundled.generate(text, max_tokens=5).token_ids for text in TEXTS]
    mixed = [np.str_(TEXTS[0]), np.array(tokenizer(TEXTS[1])["input_ids"]), {"prompt": TEXTS[2]}]
    assert tokens_of(bundled.generate(mixed, max_tokens=5)) == wanted
    assert tokens_of(bundled.generate((p for p in mixed), max_tokens=5)) == wanted
    assert (
        tokens_of(bundled.generate([{"prompt_token_ids": tokenizer(t)["input_ids"]} for t in TEXTS], max_tokens=5))
        == wanted
    )
    assert bundled.generate([]) == []


def test_stream_encode_and_prediction_take_the_same_forms(bundled: LLM, tokenizer: PreTrainedTokenizerBase) -> None:
    whole = bundled.generate(TEXTS[0], max_tokens=5)
    batch_of_one = tokenizer(TEXTS[0], return_tensors="pt")
    assert [t.id for t in bundled.stream(batch_of_one, max_tokens=5)] == list(whole.token_ids)
    assert bundled.encode(batch_of_one) == bundled.encode(TEXTS[0])
    guess = torch.tensor(whole.token_ids)
    assert bundled.generate(TEXTS[0], max_tokens=5, prediction=guess).token_ids == whole.token_ids
    with pytest.raises(RequestError, match=r"^prediction is 3; allowed: a string, token ids, or"):
        bundled.generate(TEXTS[0], prediction=3)
    with pytest.raises(RequestError, match=r"^prompt is a batch of 2; allowed here: one prompt$"):
        bundled.stream(TEXTS[:2])


def test_a_prompt_that_is_none_is_refused_through_the_facade(bundled: LLM) -> None:
    for value in (None, 3, b"text", [None], {"text": "x"}):
        with pytest.raises(RequestError, match=r"^prompt(\[0\])? is .*; allowed: a string"):
            bundled.generate(value)
    for empty in ("", {"prompt_token_ids": []}, [[]], np.zeros(0, int)):
        with pytest.raises(RequestError, match="the prompt is empty"):
            bundled.generate(empty)
    with pytest.raises(RequestError, match="outside the vocabulary"):
        bundled.generate(np.array([-1]))
