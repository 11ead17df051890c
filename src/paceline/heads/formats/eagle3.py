"""EAGLE-3 as its authors, SpecForge, lmsys and AngelSlim lay it out: one layer called `midlayer`.

The authors' code has its taps hard-wired and names none. SpecForge's numbers are those of layers whose output is
meant: tap k is the output of layer k - 1.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from paceline.heads.eagle import Eagle3Head, EagleConfig
from paceline.heads.formats._files import HeadFiles, filled, flag, integer, layers_of, tap_ids
from paceline.heads.formats._layout import Layout, Opened
from paceline.heads.formats._vocabulary import target_ids

KINDS = {"llama": "llama", "qwen3": "qwen3", "qwen2": "qwen2"}  # of layers
_IDS = "eagle_aux_hidden_state_layer_ids"
_LEFT_OUT = re.compile(r"^(d2t|t2d|verifier_.*|.*rotary_emb\..*)$")


def fits(files: HeadFiles) -> bool:
    """See `Layout`."""
    return not files.speculators_type and "midlayer.self_attn.q_proj.weight" in files.names


def open_raw(files: HeadFiles) -> Opened:
    """See `Layout`."""
    values = {**files.config, "num_hidden_layers": 1, **kind_of(files, "midlayer.")}
    return opened(files, values, _taps(files), {"midlayer.": "layers.0."}, norm_before_residual=False)


def kind_of(files: HeadFiles, first: str) -> dict[str, Any]:
    """Of which kind layers are, by what the first has: configurations name that of the target as often."""
    has = {name: f"{first}self_attn.{name}" in files.names for name in ("q_norm.weight", "q_proj.bias", "o_proj.bias")}
    kind = "qwen3" if has["q_norm.weight"] else "llama"
    if has["q_proj.bias"] and not has["o_proj.bias"]:
        kind = "qwen2"
    has_bias = f"{first}mlp.up_proj.bias" in files.names
    return {"model_type": kind, "attention_bias": has["q_proj.bias"], "mlp_bias": has_bias}


def _taps(files: HeadFiles) -> tuple[int, ...]:
    ids = files.part("eagle_config").get(_IDS, files.config.get(_IDS))
    return () if ids is None else tap_ids(ids, _IDS, shift=1)


def opened(
    files: HeadFiles,
    layers: dict[str, Any],
    taps: tuple[int, ...],
    names: dict[str, str],
    norm_before_residual: bool,
    mask_token_id: int = -1,
) -> Opened:
    """A head from a configuration of layers, its taps, and beginnings of names with ours in their place.

    `norm_before_residual` is what its writer means by saying nothing of it.
    """
    weights = {_renamed(name, names): files.tensor(name) for name in files.names if not _LEFT_OUT.search(name)}
    config = _config(files, layers, taps, weights, norm_before_residual, mask_token_id)
    num_taps = files.shape("fc.weight")[1] // config.target_hidden_size
    has_embedding = "embed_tokens.weight" in weights
    module = filled(files, lambda: Eagle3Head(config, num_taps, has_embedding), weights)
    return Opened(module, target_ids(files, config.num_logits, int(config.layers.vocab_size)))


def _config(
    files: HeadFiles,
    layers: dict[str, Any],
    taps: tuple[int, ...],
    weights: dict[str, torch.Tensor],
    norm_before_residual: bool,
    mask_token_id: int,
) -> EagleConfig:
    said = files.config
    built = layers_of(layers, KINDS)
    wide = said.get("target_hidden_size") or built.hidden_size
    normed = "all" if "input_norm.weight" in weights else "each" if "fc_norm.0.weight" in weights else ""
    size, vocab_size = said.get("draft_vocab_size"), int(built.vocab_size)
    return EagleConfig(
        layers=built,
        taps=taps,
        target_hidden_size=integer({"target_hidden_size": wide}, "target_hidden_size", 1, 2**16),
        tap_norm=normed,
        norm_before_residual=flag(said, "norm_before_residual", norm_before_residual),
        norm_output=flag(said, "norm_output", False),
        draft_vocab_size=0 if size is None else integer(said, "draft_vocab_size", 1, vocab_size),
        mask_token_id=mask_token_id,
    )


def _renamed(name: str, names: dict[str, str]) -> str:
    for theirs, ours in names.items():
        if name.startswith(theirs):
            return ours + name[len(theirs) :]
    return name


LAYOUT = Layout("EAGLE-3", fits, open_raw)
