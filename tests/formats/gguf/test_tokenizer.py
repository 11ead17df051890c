"""Tokenizers that were written to a file and read again give the ids of the originals, over odd texts.

Against llama.cpp's own vectors too, where its folder `models` is: PACELINE_GGUF_VOCABULARIES=FOLDER.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, GemmaTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from formats.gguf.files import ARRAY, BOOL, F32, STRING, U32, pair, tiny_llama
from paceline.bundled import DEFAULT_TARGET, bundled_path
from paceline.errors import ModelError
from paceline.formats.gguf import open_gguf
from paceline.formats.gguf.header import read_header
from paceline.formats.gguf.splits import SPLITS
from paceline.formats.gguf.tokenizer import merges_of, read_tokenizer

pytest.importorskip("gguf")

STORIES = Path(__file__).parents[4] / "shared" / "models" / "stories260K"
TEXTS = [
    " ",
    "  two  spaces ",
    "\n",
    "\n\n\ttabs\r\n and lines\n",
    "1234567 3.14 1,000 ٣٤ ⅷ ²",
    "It's we'll I'VE don'T",
    "naïve café — “quoted” … ﬁ ℌ Å é",
    "日本語のテキスト と 한국어, русский, العربية, עברית",
    "🙂🏽‍🚀 👨‍👩‍👧 \u200b\u00a0\u3000",
    "<|endoftext|> a<|endoftext|>b <s></s> <unk> <|im_start|>user\n<|im_end|>",
    "<0x0A> ▁ ▁▁a Ġ Ċ",
    "def f(x):\n    return x**2  # ''\n\n\n\n",
    "\x00\x7f\ufffd",
    "a" * 300,
]
CORPUS = [
    *TEXTS,
    "the quick brown fox jumps over the lazy dog " * 3,
    "Once upon a time there was a little cat. 12 34",
] * 4


def byte_level(name: str) -> PreTrainedTokenizerFast:
    """A tokenizer of a kind, trained on the spot."""
    split = SPLITS[name]
    inner: Any = Tokenizer(models.BPE(ignore_merges=split.whole_words))
    inner.pre_tokenizer = split.pre_tokenizer()
    if split.composes:
        inner.normalizer = normalizers.NFC()
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    inner.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, special_tokens=special, show_progress=False),
    )
    inner.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    if split.adds_bos:
        inner.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A", pair="$A $B", special_tokens=[("<|endoftext|>", 0)]
        )
    template = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<|endoftext|>", eos_token="<|im_end|>", chat_template=template
    )


def written(tokenizer: Any, folder: Path) -> Any:
    """The tokenizer read from a file that it was written to, with a tiny model whose vocabulary is larger."""
    from paceline.formats.gguf.writer import write_gguf

    size = len(tokenizer) + 7
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        eos_token_id=[2, 1],
    )
    write_gguf(LlamaForCausalLM(config), folder / "model.gguf", tokenizer)
    return open_gguf(folder / "model.gguf").tokenizer()


def agree(one: Any, other: Any, text: str) -> None:
    for special in (True, False):
        ids = [t(text, add_special_tokens=special)["input_ids"] for t in (one, other)]
        assert ids[0] == ids[1], text
        assert one.decode(ids[0]) == other.decode(ids[0])
        assert one.decode(ids[0], skip_special_tokens=True) == other.decode(ids[0], skip_special_tokens=True)


@cache
def originals(name: str) -> Any:
    if name == "bundled":
        return AutoTokenizer.from_pretrained(bundled_path(DEFAULT_TARGET))
    if name == "stories260K":
        return AutoTokenizer.from_pretrained(STORIES)
    return byte_level(name)


READ: dict[str, Any] = {}


def both(name: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    if name == "stories260K" and not STORIES.is_dir():
        pytest.skip("needs the shared folder beside the project")
    if name not in READ:
        READ[name] = written(originals(name), tmp_path_factory.mktemp("tokenizer"))
    return originals(name), READ[name]


NAMES = [
    "bundled",
    "stories260K",
    *dict.fromkeys(next(n for n in SPLITS if SPLITS[n] == split) for split in SPLITS.values()),
]


@pytest.mark.parametrize("name", NAMES)
def test_odd_texts(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    one, other = both(name, tmp_path_factory)
    assert len(one) == len(other)
    assert (one.bos_token_id, one.eos_token_id, one.unk_token_id) == (
        other.bos_token_id,
        other.eos_token_id,
        other.unk_token_id,
    )
    assert one.chat_template == other.chat_template
    for text in TEXTS:
        agree(one, other, text)


@pytest.mark.parametrize("name", ["bundled", "stories260K", "llama3", "deepseek-llm"])
@settings(max_examples=60, deadline=None)
@given(text=st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from(" \n▁'0aé<>|")), max_size=40))
def test_any_text(name: str, text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    agree(*both(name, tmp_path_factory), text)


def test_another_split_gives_other_tokens(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the refusal of unknown names is for."""
    one, _ = both("llama3", tmp_path_factory)
    other: Any = Tokenizer.from_str(one.backend_tokenizer.to_str())
    other.pre_tokenizer = SPLITS["gpt-2"].pre_tokenizer()
    assert any(one(text, add_special_tokens=False)["input_ids"] != other.encode(text).ids for text in TEXTS)


def metadata(*pairs: bytes, without: str = "\n") -> Any:
    file = tiny_llama()
    file.pairs = [one for one in file.pairs if not one[8:].startswith(without.encode())] + list(pairs)
    return read_header(memoryview(file.to_bytes()), "model.gguf").metadata


def test_pieces_with_bytes_scores_and_a_filling_token() -> None:
    found: Any = read_tokenizer(metadata(), "llama", 10)
    assert found("ab a")["input_ids"] == [1, 7, 6, 7]  # ▁a goes before ab: its score is higher
    assert found("a\n")["input_ids"] == [1, 7, 3]
    assert len(found) == 9
    assert found.decode([1, 7, 6, 7], skip_special_tokens=True) == "ab a"
    bare: Any = read_tokenizer(metadata(pair("tokenizer.ggml.add_space_prefix", BOOL, False)), "llama", 10)
    assert bare("ab a")["input_ids"] == [1, 8, 7]


def test_merges_follow_from_scores() -> None:
    ids = {"a": 0, "b": 1, "ab": 2, "aba": 3, "ba": 4}
    assert merges_of(ids, {"a": -9.0, "b": -9.0, "ab": -2.0, "aba": -3.0, "ba": -1.0}) == [
        ("b", "a"),
        ("a", "b"),
        ("a", "ba"),
        ("ab", "a"),
    ]


@pytest.mark.parametrize("architecture", ["gemma2", "gemma3"])
def test_gemmas_pieces_are_merged_by_place_and_its_runs_of_spaces_respelled(architecture: str) -> None:
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<0x0A>", "  ", "   ", "▁a", "ab", "▁", "a", "b", "\n"]
    types = [3, 3, 3, 2, 6, 4, 4, 1, 1, 1, 1, 1, 4]
    found: Any = read_tokenizer(
        metadata(
            pair("tokenizer.ggml.model", STRING, "llama"),
            pair("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
            pair("tokenizer.ggml.token_type", ARRAY, (5, types)),
            pair("tokenizer.ggml.scores", ARRAY, (F32, [float(i) for i in range(len(tokens))])),
            pair("tokenizer.ggml.bos_token_id", U32, 2),
            pair("tokenizer.ggml.unknown_token_id", U32, 3),
            pair("tokenizer.ggml.add_space_prefix", BOOL, False),
            without="tokenizer.ggml.",
        ),
        architecture,
        20,
    )
    spelled = {"▁" * len(t) if t in ("  ", "   ") else t: i for i, t in enumerate(tokens)}
    merges = [("▁", "▁"), ("▁", "▁▁"), ("▁▁", "▁"), ("▁", "a"), ("a", "b")]
    original = GemmaTokenizer(vocab=spelled, merges=merges, bos_token="<bos>", add_bos_token=True)
    for text in ("a b  ab   a", " a", "ab\nab", "    "):
        assert found(text)["input_ids"] == original(text)["input_ids"], text
        assert found.decode(found(text)["input_ids"]) == original.decode(original(text)["input_ids"])


@pytest.mark.parametrize(
    ("key", "kind", "what", "words"),
    [
        ("model", STRING, "t5", "model is 't5'; allowed: gpt2, llama"),
        ("model", STRING, "gpt2", r"tokenizer.ggml.pre is ''; allowed: gpt-2, .*or give the token"),
        ("tokens", ARRAY, (STRING, ["a"] * 10), "the token 'a' occurs twice; allowed: once"),
        ("tokens", ARRAY, (STRING, ["a"]), "has 1 tokens of 10 types; allowed: 1 to 10"),
        ("tokens", ARRAY, (U32, [1]), "is an array of 1 uint32; allowed: an array of strings"),
        ("scores", ARRAY, (F32, [0.0]), "has 1 scores; allowed: 10, one a token"),
        ("bos_token_id", U32, 10, "bos_token_id is 10; allowed: an integer from 0 to 9"),
    ],
)
def test_what_does_not_fit_together_is_refused(key: str, kind: int, what: Any, words: str) -> None:
    name = f"tokenizer.ggml.{key}"
    with pytest.raises(ModelError, match=words):
        read_tokenizer(metadata(pair(name, kind, what), without=name), "llama", 10)


def bpe(*pairs: bytes) -> Any:
    return metadata(
        pair("tokenizer.ggml.model", STRING, "gpt2"),
        pair("tokenizer.ggml.tokens", ARRAY, (STRING, ["a", "b", "ab"])),
        *pairs,
        without="tokenizer.ggml.",
    )


def test_an_unknown_split_is_refused_by_name() -> None:
    merges = pair("tokenizer.ggml.merges", ARRAY, (STRING, ["a b"]))
    with pytest.raises(ModelError, match="pre is 'grok-2'; allowed: gpt-2, phi-2, smollm"):
        read_tokenizer(bpe(merges, pair("tokenizer.ggml.pre", STRING, "grok-2")), "llama", 3)
    for architecture in ("qwen2", "gpt2"):  # leave no doubt
        found: Any = read_tokenizer(bpe(merges, pair("tokenizer.ggml.pre", STRING, "default")), architecture, 3)
        assert found("ab")["input_ids"] == [2]


@pytest.mark.parametrize("merge", ["ab", "a ", " b", "a c"])
def test_a_merge_that_is_none(merge: str) -> None:
    pairs = [pair("tokenizer.ggml.pre", STRING, "gpt-2"), pair("tokenizer.ggml.merges", ARRAY, (STRING, [merge]))]
    with pytest.raises(ModelError, match=r"a merge is|its tokenizer makes no gpt2"):
        read_tokenizer(bpe(*pairs), "llama", 3)


def test_several_chat_templates() -> None:
    key = "tokenizer.chat_template"
    named = [pair("tokenizer.chat_templates", ARRAY, (STRING, ["tool_use"])), pair(f"{key}.tool_use", STRING, "T")]
    assert read_tokenizer(metadata(pair(key, STRING, "D")), "llama", 10).chat_template == "D"  # type: ignore[union-attr]
    found: Any = read_tokenizer(metadata(pair(key, STRING, "D"), *named), "llama", 10)
    assert found.chat_template == {"default": "D", "tool_use": "T"}


FOLDER = os.environ.get("PACELINE_GGUF_VOCABULARIES")
OF_LLAMA_CPP = [
    "deepseek-coder",
    "deepseek-llm",
    "gpt-2",
    "llama-bpe",
    "llama-spm",
    "phi-3",
    "qwen2",
    "refact",
    "starcoder",
]


@pytest.mark.skipif(FOLDER is None, reason="needs llama.cpp's folder models")
@pytest.mark.parametrize("name", OF_LLAMA_CPP)
def test_llama_cpps_vectors(name: str) -> None:
    from paceline.formats.gguf.reader import open_reader

    path = Path(str(FOLDER)) / f"ggml-vocab-{name}.gguf"
    found = open_reader(path).metadata
    tokenizer: Any = read_tokenizer(found, found.text("general.architecture"), 10**6)
    texts = path.with_name(f"{path.name}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = path.with_name(f"{path.name}.out").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(texts) - 1  # an empty one is last
    for text, line in zip(texts, lines, strict=False):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == [int(word) for word in line.split()], text
