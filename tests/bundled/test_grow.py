"""An inflated model says what the original says; the whole 134 million are too slow for a test."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import paceline
from paceline.bundled import DEFAULT_TARGET, bundled_path
from paceline.bundled.grow import SIZES, Growth, inflate, inflated_config, num_parameters
from paceline.errors import ConfigError
from paceline.model.pretrained import read_model

WIDER = Growth(hidden_size=1024, num_layers=9, num_heads=12, num_kv_heads=6, intermediate_size=700)
PROMPTS = [
    "Once upon a time, there was a little fox who wanted to learn how to swim.",
    "Command: will it rain in Norway next friday\nJSON:",
    "Question: Omar reads 15 pages a day for 6 days. The book has 120 pages. How many pages are left to read?\nAnswer:",
]


def llama(**changes: object) -> LlamaForCausalLM:
    """Random weights of every kind of parameter, norms included, and odd sizes."""
    settings = {
        "hidden_size": 36,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "intermediate_size": 51,
        "vocab_size": 101,
        "rms_norm_eps": 0.03,  # large, so that a wrong one shows
        **changes,
    }
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(**settings)).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, mean=0.1, std=0.3)
    return model


def bundled(dtype: torch.dtype) -> LlamaForCausalLM:
    return read_model(DEFAULT_TARGET, dtype, torch.device("cpu"))


@torch.inference_mode()
def logits(model: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    return model(ids).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_paceline_decodes_the_same_tokens(dtype: torch.dtype) -> None:
    original = bundled(dtype)
    outputs = []
    for model in (original, inflate(original, WIDER)):
        with paceline.load(model, tokenizer=str(bundled_path(DEFAULT_TARGET)), cache_tokens=1024) as llm:
            outputs.append([output.token_ids for output in llm.generate(PROMPTS, max_tokens=24, ignore_eos=True)])
    assert outputs[0] == outputs[1]


def test_transformers_generates_the_same_tokens() -> None:
    original = bundled(torch.float32)
    config = GenerationConfig(max_new_tokens=24, min_new_tokens=24, do_sample=False, pad_token_id=0)
    ids = torch.randint(0, 4096, (3, 17), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    outputs = [
        model.generate(ids, attention_mask=mask, generation_config=config)
        for model in (original, inflate(original, WIDER))
    ]
    assert torch.equal(*outputs)


SHAPES = {
    "odd sizes": ({}, Growth(144, 3, 9, 3, 53)),
    "sixteen times the width": ({}, Growth(576, 2, 6, 2, 51)),
    "deeper alone": ({}, Growth(36, 5, 6, 2, 51)),
    "biases": ({"attention_bias": True, "mlp_bias": True}, Growth(144, 3, 9, 3, 53)),
    "a head of its own": ({"tie_word_embeddings": False}, Growth(144, 3, 9, 3, 53)),
    "a tied head": ({"tie_word_embeddings": True}, Growth(144, 3, 9, 3, 53)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_stay_whatever_grows(shape: str) -> None:
    changes, growth = SHAPES[shape]
    original = llama(**changes)
    ids = torch.arange(101).view(1, -1)
    wanted, found = logits(original, ids), logits(inflate(original, growth), ids)
    assert wanted.std() > 0.3
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_the_sizes_are_those_asked_for_and_the_work_is_real() -> None:
    growth = Growth(144, 3, 9, 3, 53)
    original = llama(tie_word_embeddings=True)
    grown = inflate(original, growth)
    block = grown.model.layers[2]  # a new one
    assert block.self_attn.q_proj.weight.shape == (90, 144)
    assert block.self_attn.k_proj.weight.shape == (30, 144)
    assert block.mlp.down_proj.weight.shape == (144, 53)
    assert not block.mlp.down_proj.weight.any()
    assert 0.01 < block.mlp.gate_proj.weight.std() < 0.1
    assert 0.01 < grown.model.layers[0].mlp.up_proj.weight[51:].std() < 0.1
    assert grown.lm_head.weight is grown.model.embed_tokens.weight
    assert not grown.training


def test_the_same_weights_every_time() -> None:
    original = llama()
    state = torch.random.get_rng_state()
    first, second = (inflate(original, Growth(144, 3, 9, 3, 53)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_original_stays_as_it_is() -> None:
    original = llama()
    weights = {name: weight.clone() for name, weight in original.named_parameters()}
    config = original.config.to_dict()
    grown = inflate(original, Growth(144, 3, 9, 3, 53))
    grown.generation_config.max_new_tokens = 7
    assert original.config.to_dict() == config
    assert original.generation_config.max_new_tokens is None
    assert all(torch.equal(weight, weights[name]) for name, weight in original.named_parameters())
    addresses = {weight.data_ptr() for weight in original.parameters()}
    assert not addresses & {weight.data_ptr() for weight in grown.parameters()}


@pytest.mark.parametrize(("size", "wanted"), [("134m", 134e6), ("1b", 1.02e9)])
def test_sizes_are_what_they_are_called(size: str, wanted: float) -> None:
    config = LlamaConfig.from_pretrained(bundled_path(DEFAULT_TARGET))
    assert num_parameters(inflated_config(config, SIZES[size])) == pytest.approx(wanted, rel=0.01)


def test_parameters_are_counted_as_the_model_has_them() -> None:
    for original in (llama(), llama(tie_word_embeddings=True)):
        assert num_parameters(original.config) == sum(weight.numel() for weight in original.parameters())


@pytest.mark.parametrize(
    ("growth", "words"),
    [
        (Growth(72, 2, 6, 2, 51), "hidden_size is 72"),
        (Growth(150, 2, 6, 2, 51), "hidden_size is 150"),
        (Growth(9, 2, 6, 2, 51), "hidden_size is 9"),
        (Growth(144, 1, 6, 2, 51), "num_layers is 1"),
        (Growth(144, 2, 3, 1, 51), "num_kv_heads is 1"),
        (Growth(144, 2, 6, 3, 51), "num_heads is 6; allowed: 3 for each"),
        (Growth(144, 2, 6, 2, 50), "intermediate_size is 50"),
    ],
)
def test_sizes_that_cannot_be_are_refused(growth: Growth, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        inflate(llama(), growth)


def test_other_models_are_refused() -> None:
    with pytest.raises(ConfigError, match="GPT2LMHeadModel; allowed: LlamaForCausalLM"):
        inflate(GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1)))
