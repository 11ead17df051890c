"""Heads laid out as each writer documents it load, and give the logits of their papers' formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from heads import reference
from heads.reference import Tensors
from heads.writers import (
    NUM_TAPS,
    SIZES,
    VOCAB,
    WIDE,
    Drawn,
    raw_eagle3,
    speculators,
    write,
    write_sharded,
)
from paceline.heads.chained import ChainedHead
from paceline.heads.dense import DenseStep, causal
from paceline.heads.formats import FoundHead, layouts, open_head
from paceline.model.interface import answered_by

ROWS = 11


def run(head: ChainedHead, taps: list[torch.Tensor], tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(states, logits) of all rows of one text."""
    places = torch.arange(len(tokens))
    step = DenseStep(causal(torch.zeros_like(places), places))
    with torch.inference_mode(), answered_by(step):
        states, logits = head(tokens[None], head.states([tap[None] for tap in taps]), places[None])
    return states[0], logits[0]


def opened(folder: Path, target: LlamaForCausalLM, kind: str) -> Any:
    found = open_head(folder)
    assert found.kind == kind
    found.module.bind(target)
    return found.module


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def taps_of(drawn: Drawn, count: int = NUM_TAPS) -> list[torch.Tensor]:
    return [drawn.matrix(ROWS, WIDE) * 3 for _ in range(count)]


def ids_of(kept: torch.Tensor) -> Tensors:
    return {"d2t": kept - torch.arange(len(kept)), "t2d": torch.isin(torch.arange(VOCAB), kept)}


@pytest.mark.parametrize("prefix", ["", "model."])
def test_eagle3_of_its_authors(prefix: str, tmp_path: Path, target: LlamaForCausalLM) -> None:
    drawn = Drawn(1)
    kept = drawn.kept(20)
    weights = drawn.eagle3("midlayer.", 20)
    folder = write(
        tmp_path, raw_eagle3(draft_vocab_size=20), {prefix + n: t for n, t in (weights | ids_of(kept)).items()}
    )
    head = opened(folder, target, "eagle")
    assert head.config.taps == (2, 2, 1)  # 2, L // 2, L - 3
    assert torch.equal(head.d2t, kept)
    taps, tokens = taps_of(drawn), drawn.tokens(ROWS)
    states, logits = run(head, taps, tokens)
    embedded = target.get_input_embeddings()(tokens)
    their_states, their_logits = reference.eagle3(weights, taps, embedded, "midlayer.", False)
    close(states, their_states)
    close(logits, their_logits)


@pytest.mark.parametrize("before_residual", [False, True])
@pytest.mark.parametrize("normed", ["none", "each", "all"])
def test_eagle3_of_specforge_with_its_norms(
    normed: str, before_residual: bool, tmp_path: Path, target: LlamaForCausalLM
) -> None:
    drawn = Drawn(2)
    weights = drawn.eagle3("midlayer.") | {"embed_tokens.weight": drawn.matrix(VOCAB, WIDE)}
    if normed == "each":
        weights |= {f"fc_norm.{i}.weight": drawn.norm(WIDE) for i in range(NUM_TAPS)}
    if normed == "all":
        weights |= {"input_norm.weight": drawn.norm(NUM_TAPS * WIDE)}
    ids = {"eagle_aux_hidden_state_layer_ids": [0, 1, 3], "use_aux_hidden_state": True}
    config = raw_eagle3(eagle_config=ids, norm_before_residual=before_residual, norm_output=True)
    head = opened(write_sharded(tmp_path, config, weights), target, "eagle")
    assert head.config.taps == (1, 2, 4)  # the outputs of these layers
    taps, tokens = taps_of(drawn), drawn.tokens(ROWS)
    states, logits = run(head, taps, tokens)
    embedded = weights["embed_tokens.weight"][tokens]
    their_states, their_logits = reference.eagle3(weights, taps, embedded, "midlayer.", before_residual)
    close(states, reference.rms(their_states, weights["norm.weight"]))
    close(logits, their_logits)


def test_eagle3_of_speculators(tmp_path: Path, target: LlamaForCausalLM) -> None:
    drawn = Drawn(3)
    weights = drawn.eagle3("layers.0.") | drawn.layer("layers.1.")
    ids = {"eagle_aux_hidden_state_layer_ids": [1, 2, 4], "draft_vocab_size": VOCAB}
    folder = write(tmp_path, speculators("eagle3", num_layers=2, **ids), weights)
    assert open_head(folder).made_for == "org/target"
    head = opened(folder, target, "eagle")
    assert head.config.taps == (1, 2, 4)
    assert head.config.norm_before_residual  # what its trainer means by saying nothing
    taps, tokens = taps_of(drawn), drawn.tokens(ROWS)
    embedded = target.get_input_embeddings()(tokens)
    their_states, their_logits = reference.eagle3(weights, taps, embedded, "layers.0.", True)
    states, logits = run(head, taps, tokens)
    close(states, their_states)
    close(logits, their_logits)


def test_raw_and_speculators_give_equal_logits(tmp_path: Path, target: LlamaForCausalLM) -> None:
    drawn = Drawn(4)
    weights = drawn.eagle3("midlayer.")
    ids = {"eagle_aux_hidden_state_layer_ids": [0, 1, 2]}
    raw = opened(write(tmp_path / "raw", raw_eagle3(**ids), weights), target, "eagle")
    renamed = {name.replace("midlayer.", "layers.0."): weight for name, weight in weights.items()}
    ids = {"eagle_aux_hidden_state_layer_ids": [1, 2, 3], "norm_before_residual": False}
    other = opened(write(tmp_path / "spec", speculators("eagle3", **ids), renamed), target, "eagle")
    assert raw.config.taps == other.config.taps == (1, 2, 3)
    taps, tokens = taps_of(drawn), drawn.tokens(ROWS)
    assert torch.equal(run(raw, taps, tokens)[1], run(other, taps, tokens)[1])


def test_peagle(tmp_path: Path, target: LlamaForCausalLM) -> None:
    drawn = Drawn(5)
    weights = drawn.eagle3("layers.0.") | {"mask_hidden": drawn.matrix(1, 1, NUM_TAPS * WIDE)}
    ids = {"eagle_aux_hidden_state_layer_ids": [1, 2, 4], "mask_token_id": 7}
    head = opened(write(tmp_path, speculators("peagle", **ids), weights), target, "eagle")
    assert head.config.mask_token_id == 7
    assert not head.config.norm_before_residual
    close(head.mask_state()[0, 0], weights["mask_hidden"][0, 0] @ weights["fc.weight"].T)
    taps, tokens = taps_of(drawn), drawn.tokens(ROWS)
    embedded = target.get_input_embeddings()(tokens)
    close(run(head, taps, tokens)[1], reference.eagle3(weights, taps, embedded, "layers.0.", False)[1])


@pytest.mark.parametrize("has_bias", [False, True])
def test_eagle1(has_bias: bool, tmp_path: Path, target: LlamaForCausalLM) -> None:
    drawn = Drawn(6)
    weights = {"fc.weight": drawn.matrix(WIDE, 2 * WIDE), **drawn.layer("layers.0.", has_input_norm=False)}
    weights |= {"fc.bias": drawn.matrix(WIDE)} if has_bias else {}
    weights |= {"embed_tokens.weight": drawn.matrix(VOCAB, WIDE)}
    config = {**SIZES, "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1}
    head = opened(write(tmp_path, config, weights), target, "eagle")
    assert head.config.taps == (5,)  # behind the final norm of four layers
    (tap,), tokens = taps_of(drawn, 1), drawn.tokens(ROWS)
    states, logits = run(head, [tap], tokens)
    theirs = reference.eagle1(weights, tap, weights["embed_tokens.weight"][tokens])
    close(states, theirs)
    close(logits, theirs @ target.lm_head.weight.T)


def run_block(
    found: FoundHead, target: LlamaForCausalLM, taps: list[torch.Tensor], pending: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs, hidden states and logits of a block behind all rows of the taps."""
    head = found.module
    head.bind(target)
    size, start = head.config.block_size, len(taps[0])
    tokens = torch.full((size,), head.config.mask_token_id)
    tokens[0] = pending
    positions = torch.arange(start, start + size)
    own = positions[:, None] - positions
    ahead = own if head.config.is_causal else own.clamp(min=0)
    distances = torch.cat([positions[:, None] - torch.arange(start), ahead], 1)
    with torch.inference_mode():
        context = head.context([tap[None] for tap in taps], torch.arange(start)[None])
        with answered_by(DenseStep(distances, context)):
            hidden, logits = head(tokens[None], positions[None])
    return tokens, hidden[0], logits[0]


BLOCK = {"block_size": 4, "num_hidden_layers": 2, "model_type": "qwen3", **SIZES}


@pytest.mark.parametrize("writer", ["z-lab", "speculators", "specforge"])
@pytest.mark.parametrize("is_causal", [False, True])
def test_dflash(writer: str, is_causal: bool, tmp_path: Path, target: LlamaForCausalLM) -> None:
    drawn = Drawn(7)
    weights = drawn.block()
    inner: dict[str, Any] = {"mask_token_id": 3, "target_layer_ids": [-1, 2]}
    config = {**BLOCK, "architectures": ["DFlashDraftModel"], "dflash_config": inner}
    if writer == "specforge":
        inner |= {"projector_type": "dspark", "markov_rank": 5, "markov_head_type": "vanilla"}
        weights |= {"markov_head.markov_w1.weight": drawn.matrix(VOCAB, 5)}
        weights |= {"markov_head.markov_w2.weight": drawn.matrix(VOCAB, 5)}
    if is_causal:
        inner["causal"] = True
    if writer == "speculators":
        config = speculators("dflash", "qwen3", 2, mask_token_id=3, aux_hidden_state_layer_ids=[0, 3], block_size=4)
        if is_causal:
            sliding = {"layer_types": ["sliding_attention"] * 2, "use_sliding_window": True, "sliding_window": 200}
            config["transformer_layer_config"] |= sliding
    found = open_head(write(tmp_path, config, weights))
    assert found.kind == "block"
    head, taps = found.module, taps_of(drawn, 2)
    assert head.config.taps == (0, 3)
    assert head.config.predicts_from_anchor == (writer == "specforge")
    assert head.config.is_causal == is_causal
    tokens, hidden, logits = run_block(found, target, taps, 9)
    embedded = target.get_input_embeddings()(tokens)
    theirs, _ = reference.block(weights, taps, embedded, ROWS, is_causal)
    close(hidden, theirs)
    close(logits, theirs @ target.lm_head.weight.T)
    assert (head.markov_head is not None) == (writer == "specforge")


def test_dspark_of_deepspec(tmp_path: Path, target: LlamaForCausalLM) -> None:
    drawn = Drawn(8)
    weights = drawn.block() | {
        "embed_tokens.weight": drawn.matrix(VOCAB, WIDE),
        "lm_head.weight": drawn.matrix(VOCAB, WIDE),
        "markov_head.markov_w1.weight": drawn.matrix(VOCAB, 6),
        "markov_head.markov_w2.weight": drawn.matrix(VOCAB, 6),
        "confidence_head.proj.weight": drawn.matrix(1, WIDE + 6),
        "confidence_head.proj.bias": drawn.matrix(1),
    }
    flat = {"mask_token_id": 3, "target_layer_ids": [0, 2], "markov_rank": 6, "markov_head_type": "vanilla"}
    config = {**BLOCK, **flat, "architectures": ["Qwen3DSparkModel"], "enable_confidence_head": True}
    found = open_head(write(tmp_path, config, weights))
    assert (found.kind, found.module.config.taps) == ("block", (1, 3))
    taps = taps_of(drawn, 2)
    tokens, hidden, logits = run_block(found, target, taps, 9)
    theirs, _ = reference.block(weights, taps, weights["embed_tokens.weight"][tokens], ROWS, False)
    close(logits, theirs @ weights["lm_head.weight"].T)
    before = drawn.tokens(4)
    biases = found.module.markov_head.biases(hidden[None], before[None])[0]
    close(biases, weights["markov_head.markov_w1.weight"][before] @ weights["markov_head.markov_w2.weight"].T)


def medusa_weights(drawn: Drawn, num_heads: int, num_layers: int, size: int) -> Tensors:
    found: Tensors = {}
    for head in range(num_heads):
        for layer in range(num_layers):
            found[f"{head}.{layer}.linear.weight"] = drawn.matrix(WIDE, WIDE)
            found[f"{head}.{layer}.linear.bias"] = drawn.matrix(WIDE)
        if size:
            found[f"{head}.{num_layers}.weight"] = drawn.matrix(size, WIDE)
    return found


def vllm_name(name: str, num_layers: int) -> str:
    head, layer, *_, kind = name.split(".")
    is_block = int(layer) < num_layers
    return f"blocks.{head}.layers.{layer}.{kind}" if is_block else f"lm_heads.{head}.weight"


@pytest.mark.parametrize("writer", ["first", "second", "vllm", "vllm with few tokens"])
def test_medusa(writer: str, tmp_path: Path, target: LlamaForCausalLM) -> None:
    drawn = Drawn(9)
    size = {"second": 0, "vllm with few tokens": 21}.get(writer, VOCAB)
    weights = medusa_weights(drawn, 3, 2, size)
    config: dict[str, Any] = {"medusa_num_heads": 3, "medusa_num_layers": 2, "base_model_name_or_path": "org/base"}
    if writer.startswith("vllm"):
        config = {"model_type": "medusa", "num_heads": 3, "num_hidden_layers": 2, "hidden_size": WIDE}
        config |= {"vocab_size": VOCAB, "truncated_vocab_size": size}
        stored = {vllm_name(name, 2): weight for name, weight in weights.items()}
        kept = drawn.kept(size)
        stored |= {"token_map": kept} if size < VOCAB else {}
        folder = write(tmp_path, config, stored)
    else:
        folder = write(tmp_path, config, weights, "medusa_lm_head.safetensors")
    head = opened(folder, target, "medusa")
    assert head.config.taps == (5,)
    (tap,) = taps_of(drawn, 1)
    with torch.inference_mode():
        ours = head(tap[None])
    assert len(ours) == 3
    for index, logits in enumerate(ours):
        hidden = reference.medusa(weights, tap, index, 2)
        close(logits[0], hidden @ weights.get(f"{index}.2.weight", target.lm_head.weight).T)
    assert head.d2t is None if size in (0, VOCAB) else torch.equal(head.d2t, kept)


@pytest.mark.parametrize("kind", ["qwen3", "qwen2"])
def test_the_kind_of_layers_is_told_by_their_weights(kind: str, tmp_path: Path) -> None:
    """Whatever the configuration says: it is the target's as often."""
    drawn = Drawn(10)
    weights = drawn.eagle3("midlayer.")
    size = {"q": 16, "k": 8, "v": 8}
    if kind == "qwen3":
        weights |= {f"midlayer.self_attn.{name}_norm.weight": drawn.norm(8) for name in "qk"}
    else:
        weights |= {f"midlayer.self_attn.{name}_proj.bias": drawn.matrix(size[name]) for name in "qkv"}
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling["original_max_position_embeddings"] = 64
    config = raw_eagle3(rope_theta=500_000.0, rope_scaling=scaling)
    layers = open_head(write(tmp_path, config, weights)).module.config.layers
    assert layers.model_type == kind
    assert (layers.rope_parameters["rope_theta"], layers.rope_parameters["rope_type"]) == (500_000.0, "llama3")


def test_no_two_layouts_have_one_name() -> None:
    names = [layout.name for layout in layouts()]
    assert len(names) == len(set(names)) >= 8
