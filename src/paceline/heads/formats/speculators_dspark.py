"""The layout of vLLM's speculators for block heads, "dspark": read, and written for heads that are trained here.

`aux_hidden_state_layer_ids` counts as taps do: k is the residual stream that enters layer k. Layers of the type
"sliding_attention" are causal within a block, others see all of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from paceline.errors import ModelError
from paceline.heads.block import BlockHead
from paceline.heads.config import BlockConfig

KIND = "dspark"
_WEIGHTS = "model.safetensors"
_SLIDING = "sliding_attention"
_UNUSED = ("confidence_head.", "t2d", "verifier_")  # what drafts by other rules than ours need


@dataclass(frozen=True)
class Verifier:
    """The target that a head was trained for, as the file names it."""

    name_or_path: str
    architectures: tuple[str, ...]

    @classmethod
    def of(cls, target: PreTrainedModel, name: str = "") -> Verifier:
        """A model in memory."""
        return cls(name or target.name_or_path, tuple(target.config.architectures or [type(target).__name__]))


def write_head(head: BlockHead, folder: Path, about: Verifier, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write `config.json` and `model.safetensors`, each in one piece, over what is there.

    What it shares with its target is left out: readers take the target's embedding and language-model head.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().to("cpu", dtype).contiguous() for name, value in head.own_state().items()}
    if head.d2t is not None:
        weights["d2t"] = (head.d2t - torch.arange(len(head.d2t))).contiguous()
    save_file(weights, part := folder / f".{_WEIGHTS}.part", metadata={"format": "pt"})
    part.chmod(0o644)  # it is made for its owner alone
    os.replace(part, folder / _WEIGHTS)
    text = json.dumps(_as_fields(head.config, about, dtype), indent=2) + "\n"
    (part := folder / ".config.json.part").write_text(text, encoding="utf-8")
    os.replace(part, folder / "config.json")


def read_head(folder: Path) -> BlockHead:
    """The head of a folder, in the dtype of its file; bind it to its target before it is run.

    Raises:
        ModelError: it is no such folder, cannot be read, or its weights are not those of its configuration.
    """
    try:
        fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / _WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"cannot read a head from {str(folder)!r}: {error}") from error
    if not isinstance(fields, dict) or fields.get("speculators_model_type") != KIND:
        raise ModelError(f"{str(folder)!r} is no head of the kind {KIND!r} in its config.json")
    head = BlockHead(read_config(fields))
    _fill(head, {name: value for name, value in weights.items() if not name.startswith(_UNUSED)}, folder)
    return head.eval()


def read_config(fields: Mapping[str, Any]) -> BlockConfig:
    """The configuration that the fields of a `config.json` stand for.

    Raises:
        ModelError: a field is missing or its value makes no head.
    """
    try:
        layers = _layers_of(fields["transformer_layer_config"])
        return BlockConfig(
            layers=layers,
            taps=tuple(int(tap) for tap in fields["aux_hidden_state_layer_ids"]),
            target_hidden_size=int(fields.get("target_hidden_size") or layers.hidden_size),
            block_size=int(fields["block_size"]),
            mask_token_id=int(fields["mask_token_id"]),
            predicts_from_anchor=bool(fields.get("sample_from_anchor", True)),
            is_causal=_is_causal(layers, bool(fields.get("sliding_window_non_causal", False))),
            transition=str(fields.get("markov_head_type", "vanilla")),
            rank=int(fields.get("markov_rank", 0)),
            draft_vocab_size=_own_vocabulary(int(fields.get("draft_vocab_size") or 0), layers.vocab_size),
        )
    except (KeyError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ModelError(f"the configuration of a {KIND} head cannot be used ({what})") from error


def _layers_of(given: Mapping[str, Any]) -> PreTrainedConfig:
    fields = {"model_type": "qwen3", **given}
    return AutoConfig.for_model(**fields)


def _is_causal(layers: PreTrainedConfig, sees_ahead: bool) -> bool:
    types = set(getattr(layers, "layer_types", None) or ["full_attention"])
    if _SLIDING not in types or sees_ahead:
        return False
    if len(types) > 1:
        raise ModelError(f"layers of a head are causal and not within a block: {', '.join(sorted(types))}")
    return True


def _own_vocabulary(size: int, full: int) -> int:
    return size if size != full else 0


def _as_fields(config: BlockConfig, about: Verifier, dtype: torch.dtype) -> dict[str, Any]:
    proposal = {
        "proposal_type": "greedy",
        "speculative_tokens": config.num_proposals,
        "verifier_accept_k": 1,
        "accept_tolerance": 0.0,
    }
    return {
        "architectures": ["DSparkSpeculator"],
        "speculators_model_type": KIND,
        "speculators_version": "0.5.0",
        "speculators_config": {
            "algorithm": KIND,
            "proposal_methods": [proposal],
            "default_proposal_method": "greedy",
            "verifier": {"name_or_path": about.name_or_path, "architectures": list(about.architectures)},
        },
        "transformer_layer_config": _as_layers(config),
        "target_hidden_size": config.target_hidden_size,
        "aux_hidden_state_layer_ids": list(config.taps),
        "block_size": config.block_size,
        "mask_token_id": config.mask_token_id,
        "sample_from_anchor": config.predicts_from_anchor,
        "sliding_window_non_causal": not config.is_causal,
        "markov_rank": config.rank,
        "markov_head_type": config.transition,
        "enable_confidence_head": False,
        "confidence_head_with_markov": False,
        "draft_vocab_size": config.num_logits,
        "tie_word_embeddings": False,
        "dtype": str(dtype).removeprefix("torch."),
    }


def _as_layers(config: BlockConfig) -> dict[str, Any]:
    """The layers' own fields; those of a causal block slide over all positions, which is how the layout says it."""
    fields: dict[str, Any] = {"model_type": config.layers.model_type, **config.layers.to_diff_dict()}
    if config.is_causal and not fields.get("sliding_window"):
        fields["sliding_window"] = config.layers.max_position_embeddings
        fields |= {"use_sliding_window": True, "layer_types": [_SLIDING] * config.layers.num_hidden_layers}
    return {name: value for name, value in fields.items() if name not in ("_attn_implementation", "dtype")}


def _fill(head: BlockHead, weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Give a head its weights, and what its file has in place of the target's."""
    config, dtype = head.config, next(iter(weights.values())).dtype if weights else torch.float32
    if "embed_tokens.weight" in weights:
        head.embed_tokens = nn.Embedding(*weights["embed_tokens.weight"].shape)
    if "lm_head.weight" in weights:
        head.lm_head = nn.Linear(config.layers.hidden_size, config.num_logits, bias=False)
    offsets = weights.pop("d2t", None)
    head.to(next((w.dtype for w in weights.values() if w.is_floating_point()), dtype))
    try:
        found = head.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ModelError(
            f"weights of the head in {str(folder)!r} have other shapes than its config.json says"
        ) from error
    wrong = sorted([*found.missing_keys, *found.unexpected_keys])
    if wrong:
        raise ModelError(
            f"weights of the head in {str(folder)!r} are missing, or have no place: {', '.join(wrong[:4])}"
        )
    if config.draft_vocab_size:
        if offsets is None or len(offsets) != config.num_logits:
            raise ModelError(f"the head in {str(folder)!r} does not say which tokens are its {config.num_logits} (d2t)")
        head.d2t = offsets.long() + torch.arange(len(offsets))
