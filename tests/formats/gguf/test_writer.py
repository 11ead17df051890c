"""The GGUF file holds every weight under llama.cpp's name, in its order."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from formats.gguf.hub_models import COMMON
from paceline.bundled import DEFAULT_TARGET, bundled_path
from paceline.errors import ConfigError
from paceline.formats.blocks import BlockRows
from paceline.formats.gguf import open_gguf
from paceline.formats.gguf.names import NAMINGS
from paceline.formats.gguf.writer import (
    TYPES,
    encoded,
    gguf_name,
    header,
    permuted,
    rope_factors,
    tensors,
    types_of_mix,
    unsupported,
    write_gguf,
)
from paceline.native.library import library

HEADS, KV_HEADS, D = 4, 2, 8
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def llama(**changes: object) -> LlamaForCausalLM:
    torch.manual_seed(0)
    settings = {
        "hidden_size": HEADS * D,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "intermediate_size": 48,
        "vocab_size": 100,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        **changes,
    }
    return LlamaForCausalLM(LlamaConfig(**settings)).eval()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("lm_head.weight", "output.weight"),
        ("model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight"),
        ("model.layers.11.self_attn.o_proj.bias", "blk.11.attn_output.bias"),
        ("model.layers.3.mlp.gate_proj.weight", "blk.3.ffn_gate.weight"),
        ("model.layers.3.input_layernorm.weight", "blk.3.attn_norm.weight"),
        ("model.layers.3.post_attention_layernorm.weight", "blk.3.ffn_norm.weight"),
    ],
)
def test_names(name: str, wanted: str) -> None:
    assert gguf_name(NAMINGS["llama"], name) == wanted


def test_a_name_that_llama_has_not_is_an_error() -> None:
    with pytest.raises(KeyError):
        gguf_name(NAMINGS["llama"], "model.layers.0.self_attn.q_norm.weight")


def test_rows_that_are_turned_together_come_side_by_side() -> None:
    rows = torch.arange(2 * 8)  # 2 heads of 8
    assert permuted(rows, 2).tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]
    matrix = torch.randn(16, 3)
    assert torch.equal(permuted(matrix, 2), matrix[permuted(rows, 2)])


@pytest.mark.parametrize("is_tied", [True, False])
def test_every_weight_is_there_once(is_tied: bool) -> None:
    model = llama(tie_word_embeddings=is_tied)
    found = dict(tensors(model))
    assert ("output.weight" in found) is not is_tied
    assert sum(t.numel() for t in found.values()) == sum(p.numel() for p in model.parameters())
    layer = model.model.layers[1]
    assert torch.equal(found["blk.1.attn_k.weight"], permuted(layer.self_attn.k_proj.weight, KV_HEADS))
    assert torch.equal(found["blk.1.attn_v.weight"], layer.self_attn.v_proj.weight)


def test_matrices_keep_their_format_and_vectors_are_float32() -> None:
    found = dict(tensors(llama(attention_bias=True).bfloat16()))
    assert found["blk.0.ffn_up.weight"].dtype == torch.bfloat16
    assert found["blk.0.attn_norm.weight"].dtype == torch.float32
    assert found["blk.0.attn_q.bias"].dtype == torch.float32


def test_scaled_frequencies_are_written_as_divisors() -> None:
    assert "rope_freqs.weight" not in dict(tensors(llama()))
    model = llama(rope_parameters=LLAMA3)
    factors = dict(tensors(model))["rope_freqs.weight"]
    assert factors.shape == (D // 2,)
    assert factors[0] == 1.0  # the fastest keeps its frequency
    assert torch.allclose(rope_factors(model)[-1], torch.tensor(8.0))


def test_the_header_says_what_the_config_says() -> None:
    found = header(llama(rms_norm_eps=1e-5))
    assert found["llama.attention.head_count_kv"] == KV_HEADS
    assert found["llama.attention.key_length"] == D
    assert found["llama.attention.layer_norm_rms_epsilon"] == 1e-5
    assert isinstance(found["llama.rope.freq_base"], float)


def test_what_llama_cpp_would_run_differently_is_refused() -> None:
    assert unsupported(llama()) is None
    assert unsupported(llama(rope_parameters=LLAMA3)) is None
    assert "GPT2LMHeadModel" in str(unsupported(GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1))))
    assert "gelu" in str(unsupported(llama(hidden_act="gelu")))
    yarn = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 128}
    assert "yarn" in str(unsupported(llama(rope_parameters=yarn)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_file_reads_back(dtype: torch.dtype, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    model = llama().to(dtype)
    write_gguf(model, tmp_path / "model.gguf")
    read = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    for name, weight in tensors(model):
        assert list(read[name].shape) == list(weight.shape)[::-1]
        assert bytes(np.ascontiguousarray(read[name].data)) == bytes(weight.contiguous().view(torch.uint8).numpy())


def test_the_vocabulary_of_a_server_reads_back(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    folder = Path(str(bundled_path(DEFAULT_TARGET)))
    write_gguf(llama(vocab_size=4096), tmp_path / "model.gguf", AutoTokenizer.from_pretrained(folder))
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    words = fields["tokenizer.ggml.tokens"].contents()
    parts = json.loads((folder / "tokenizer.json").read_text())
    assert words == [word for word, _ in sorted(parts["model"]["vocab"].items(), key=lambda e: e[1])]
    assert fields["tokenizer.ggml.pre"].contents() == "smollm"
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False
    kinds = fields["tokenizer.ggml.token_type"].contents()
    assert [kinds[0], *set(kinds[1:])] == [3, 1]
    assert len(fields["tokenizer.ggml.merges"].contents()) == 3839


SHAPES = {
    **COMMON,
    "hidden_size": 256,
    "intermediate_size": 288,
    "vocab_size": 50,
    "num_attention_heads": 4,
    "head_dim": 64,
}
OTHERS = {
    "llama3": LlamaConfig(**SHAPES, rope_parameters=LLAMA3),
    "linear": LlamaConfig(**SHAPES, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}),
    "mistral": MistralConfig(**SHAPES, sliding_window=None),
    "qwen2": Qwen2Config(**{**SHAPES, "tie_word_embeddings": True}),
    "qwen3": Qwen3Config(**SHAPES),
}


def made(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(OTHERS[name]).bfloat16().eval()


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_written_is_what_is_read(name: str, tmp_path: Path) -> None:
    model, path = made(name), tmp_path / "model.gguf"
    assert unsupported(model) is None
    count = []
    write_gguf(model, path, advance=lambda: count.append(1))
    state = model.state_dict()
    found = open_gguf(path)
    read = {weight.name: weight for weight in found.weights()}
    assert len(count) == len(read)
    if name == "llama3":
        assert torch.equal(read.pop("rope_freqs").value, rope_factors(model))
    else:
        assert found.config.rope_parameters == model.config.rope_parameters
    for key, weight in read.items():
        assert torch.equal(weight.value.to(torch.bfloat16), state[key]), key
    assert state.keys() - read.keys() == ({"lm_head.weight"} if name == "qwen2" else set())


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind not in ("F32", "F16", "BF16")])
def test_types_of_blocks(kind: str, tmp_path: Path) -> None:
    """Each matrix in its type where its rows allow it, with the values that it was rounded to."""
    pytest.importorskip("gguf")
    if kind.endswith("_K") and library() is None:
        pytest.skip("rounded by the native kernels")
    model, path = made("qwen3"), tmp_path / "model.gguf"
    write_gguf(model, path, type_of=lambda name, _: "BF16" if name == "token_embd.weight" else kind)
    by_name = {weight.name: weight for weight in open_gguf(path).weights()}
    assert by_name["model.embed_tokens.weight"].stored_as == "BF16"
    assert by_name["model.norm.weight"].stored_as == "F32"
    down = by_name["model.layers.0.mlp.down_proj.weight"]  # rows of 288
    assert down.stored_as == ("BF16" if kind.endswith("_K") else kind)
    gate = by_name["model.layers.1.mlp.gate_proj.weight"]
    assert gate.stored_as == kind
    assert isinstance(gate.value, BlockRows)
    assert (gate.value.num_rows, gate.value.k) == (288, 256)
    if gate.value.type.name == kind:
        wanted = encoded(model.state_dict()[gate.name], kind)
        np.testing.assert_array_equal(gate.value.data.numpy(), wanted)


def test_a_mix_has_more_bits_where_it_matters(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    if library() is None:
        pytest.skip("rounded by the native kernels")
    model, path = made("qwen3"), tmp_path / "model.gguf"
    write_gguf(model, path, type_of=types_of_mix(model, "int4"))
    kinds = {weight.name: weight.stored_as for weight in open_gguf(path).weights()}
    assert kinds["lm_head.weight"] == "Q6_K"
    assert {kinds[f"model.layers.{i}.self_attn.v_proj.weight"] for i in range(3)} == {"Q4_K", "Q6_K"}
    assert kinds["model.layers.1.mlp.gate_proj.weight"] == "Q4_K"


def test_a_type_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the type is 'Q9'; allowed: F32, F16, BF16, Q8_0"):
        write_gguf(made("qwen3"), tmp_path / "model.gguf", type_of=lambda *_: "Q9")


def test_without_the_package_a_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ConfigError, match=r'gguf is not installed; allowed: pip install "paceline\[gguf\]" first'):
        write_gguf(made("qwen3"), tmp_path / "model.gguf")
