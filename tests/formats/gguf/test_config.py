"""What metadata says of a model's shape and rotary embedding, and what of it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from formats.gguf.files import ARRAY, BOOL, F32, STRING, U32, Entry, File, pair, tiny_llama
from paceline.errors import ModelError
from paceline.formats.gguf import GGUFCheckpoint, open_gguf


def checkpoint(path: Path, *pairs: bytes, without: str = "", file: File | None = None) -> GGUFCheckpoint:
    """The tiny llama with some keys more, and without those that begin so."""
    file = file or tiny_llama()
    if without:
        file.pairs = [one for one in file.pairs if not one[8:].startswith(without.encode())]
    file.pairs += pairs
    return open_gguf(file.write(path / "model.gguf"))


def test_a_tiny_file_is_read(tmp_path: Path) -> None:
    found = checkpoint(tmp_path)
    assert (found.config.vocab_size, found.config.head_dim, found.config.tie_word_embeddings) == (10, 4, True)
    assert found.config.rms_norm_eps == 1e-5
    assert len(list(found.weights())) == 11


@pytest.mark.parametrize("kind", [0, 2, 4, 5, 10, 11])
def test_widths_of_integers_vary_between_writers(kind: int, tmp_path: Path) -> None:
    found = checkpoint(tmp_path, pair("llama.block_count", kind, 1), without="llama.block_count")
    assert found.config.num_hidden_layers == 1


def test_heads_by_layer_are_read_if_they_do_not_vary(tmp_path: Path) -> None:
    key = "llama.attention.head_count_kv"
    found = checkpoint(tmp_path, pair(key, ARRAY, (U32, [1, 1, 1])), without=key)
    assert found.config.num_key_value_heads == 1
    with pytest.raises(ModelError, match=r"head_count_kv is \[1, 2\] by layer; allowed: one for all"):
        checkpoint(tmp_path, pair(key, ARRAY, (U32, [1, 2])), without=key).config  # noqa: B018


def test_layers_that_predict_further_tokens_are_left_out(tmp_path: Path) -> None:
    file = tiny_llama()
    file.entries.append(Entry("blk.1.nextn.eh_proj.weight", (8, 8), 0, bytes(256)))
    pairs = [pair("llama.block_count", U32, 2), pair("llama.nextn_predict_layers", U32, 1)]
    found = checkpoint(tmp_path, *pairs, without="llama.block_count", file=file)
    assert found.config.num_hidden_layers == 1
    assert len(list(found.weights())) == 11


LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [
        ([pair("llama.rope.scaling.factor", F32, 2.0)], LINEAR),
        ([pair("llama.rope.scale_linear", F32, 2.0)], LINEAR),
        ([pair("llama.rope.scaling.type", STRING, "none")], {"rope_type": "default", "rope_theta": 10_000.0}),
        ([pair("llama.rope.freq_base", F32, 5e5)], {"rope_type": "default", "rope_theta": 5e5}),
    ],
)
def test_rotary_embeddings(pairs: list[bytes], wanted: dict[str, Any], tmp_path: Path) -> None:
    assert checkpoint(tmp_path, *pairs).config.rope_parameters == wanted


def test_divisors_of_frequencies_come_last(tmp_path: Path) -> None:
    file = tiny_llama()
    file.entries.insert(0, Entry("rope_freqs.weight", (2,), 0, torch.tensor([1.0, 8.0]).numpy().tobytes()))
    *_, last = checkpoint(tmp_path, file=file).weights()
    assert (last.name, last.value.tolist()) == ("rope_freqs", [1.0, 8.0])  # type: ignore[union-attr]
    file.entries[0] = Entry("rope_freqs.weight", (3,), 0, bytes(12))
    with pytest.raises(ModelError, match=r"'rope_freqs.weight' is \[3\] of F32; allowed: \[2\] of floats"):
        list(checkpoint(tmp_path, file=file).weights())


def test_all_end_tokens_are_known(tmp_path: Path) -> None:
    assert checkpoint(tmp_path).config.eos_token_id == 2
    assert checkpoint(tmp_path, pair("tokenizer.ggml.eot_token_id", U32, 5)).config.eos_token_id == [2, 5]
    key = "tokenizer.ggml.tokens"
    words = ["<unk>", "<s>", "</s>", "<0x0A>", "▁", "<|im_end|>", "b", "<|eot_id|>", "ab", "[PAD9]"]
    types = pair("tokenizer.ggml.token_type", ARRAY, (5, [2, 3, 3, 6, 1, 1, 1, 3, 1, 5]))
    found = checkpoint(tmp_path, pair(key, ARRAY, (STRING, words)), types, without="tokenizer.ggml.token")
    assert found.config.eos_token_id == [2, 7]  # 5 is an ordinary token


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([pair("llama.expert_count", U32, 8)], "is a mixture of experts of llama; allowed: one of qwen3moe"),
        (
            [pair("llama.logit_scale", F32, 0.5)],
            "llama.logit_scale is 0.5, which is not computed here; allowed: 0.0, 1.0",
        ),
        ([pair("llama.attention.value_length", U32, 6)], "has keys of 4 and values of 6; allowed: equal widths"),
        ([pair("llama.rope.scaling.type", STRING, "dynamic")], "is 'dynamic'; allowed: none, linear, yarn, longrope"),
        ([pair("llama.rope.freq_base", F32, float("nan"))], "freq_base is nan; allowed: a finite number"),
        ([pair("llama.nextn_predict_layers", U32, 1)], "allowed: an integer from 0 to 0"),
        ([pair("tokenizer.ggml.eot_token_id", U32, 10)], "eot_token_id is 10; allowed: an integer from 0 to 9"),
        ([pair("llama.attention.key_length", BOOL, True)], "key_length is True; allowed: an integer from 1"),
        ([pair("llama.rope.scaling.factor", STRING, "2")], "factor is '2'; allowed: a finite number"),
    ],
)
def test_what_would_be_computed_otherwise_is_refused(pairs: list[bytes], words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=words):
        checkpoint(tmp_path, *pairs).config  # noqa: B018


def test_a_tensor_that_is_not_the_architectures_is_refused(tmp_path: Path) -> None:
    file = tiny_llama()
    file.entries.append(Entry("blk.0.attn_sinks.weight", (8,), 0, bytes(32)))
    with pytest.raises(
        ModelError, match=r"'blk.0.attn_sinks.weight' is not known in this architecture; allowed: token_embd"
    ):
        list(checkpoint(tmp_path, file=file).weights())


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    file = tiny_llama()
    del file.entries[4]
    with pytest.raises(ModelError, match=r"no tensor for model.layers.0.self_attn.k_proj.weight"):
        list(checkpoint(tmp_path, file=file).weights())


def test_a_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    file = tiny_llama()
    file.entries[4].dims = (4, 8)
    with pytest.raises(
        ModelError, match=r"'blk.0.attn_k.weight' makes a \[8, 4\] of .*k_proj.weight; allowed: \[4, 8\]"
    ):
        list(checkpoint(tmp_path, file=file).weights())


def test_vectors_of_blocks_are_refused(tmp_path: Path) -> None:
    file = tiny_llama()
    for one in file.entries:
        one.data = bytes(32 * 32 * 4)
        one.dims = tuple(32 if dim == 8 else dim for dim in one.dims)
    pairs = [pair("llama.embedding_length", U32, 32), pair("llama.attention.key_length", U32, 4)]
    next(e for e in file.entries if e.name == "output_norm.weight").kind = 8
    with pytest.raises(ModelError, match=r"'output_norm.weight' is a vector of Q8_0; allowed: F32, F16, BF16"):
        list(checkpoint(tmp_path, *pairs, without="llama.embedding", file=file).weights())
