"""Layers that predict further ahead, inside a target's own folder: transformers drops them, so they are read here.

Of several such layers, each for a depth of its own, the first is read and used for all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, PreTrainedConfig

from paceline.errors import ModelError, first_line
from paceline.heads.formats._files import HeadFiles, filled
from paceline.heads.formats._layout import Layout, Opened
from paceline.heads.mtp import MTPConfig, MTPHead

_EXPERT = re.compile(r"^(.*\.experts)\.(\d+)\.(gate|up|down)_proj\.weight$")
_OUR_NORMS = ("token_layernorm.", "hidden_layernorm.", "input_proj.", "final_layernorm.")


class _Family(NamedTuple):
    """How a family of targets names such a layer, and how it runs it."""

    prefix: Callable[[PreTrainedConfig], str]  # of all its tensors
    names: dict[str, str]  # beginnings behind the prefix -> ours; an empty one leaves the tensor out
    is_hidden_first: bool = False
    norm_output: bool = True
    place: Callable[[PreTrainedConfig], int] = lambda config: 0  # of the layer, among its family's


_QWEN = _Family(
    lambda config: "mtp.",
    {
        "fc.": "input_proj.",
        "pre_fc_norm_embedding.": "token_layernorm.",
        "pre_fc_norm_hidden.": "hidden_layernorm.",
        "norm.": "final_layernorm.",
        "layers.0.": "layer.",
        "layers.": "",
        "embed_tokens.": "",
    },
)
_DEEPSEEK = _Family(
    lambda config: f"layers.{config.num_hidden_layers}.",
    {
        "eh_proj.": "input_proj.",
        "enorm.": "token_layernorm.",
        "hnorm.": "hidden_layernorm.",
        "shared_head.norm.": "final_layernorm.",
        "shared_head.head.": "",
        "embed_tokens.": "",
        "": "layer.",
    },
    norm_output=False,
    place=lambda config: int(config.num_hidden_layers),
)
MIMO = _Family(
    lambda config: "mtp_layers.0.", {**{name: name for name in _OUR_NORMS}, "": "layer."}, is_hidden_first=True
)
QWEN_KINDS = ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")
_FAMILIES = {
    **dict.fromkeys(QWEN_KINDS, _QWEN),
    "deepseek_v3": _DEEPSEEK,
    "glm4_moe": _DEEPSEEK,
    "mimo": MIMO,
}
_AS = {"mimo": "qwen2"}  # transformers' word for a family whose class is its authors' own


def fits(files: HeadFiles) -> bool:
    """See `Layout`."""
    known = _family(files)
    if files.speculators_type or known is None:
        return False
    try:
        config, prefix = _target(files), known.prefix(_target(files))
    except ModelError:
        return False
    return int(config.num_hidden_layers) > 0 and any(name.startswith(prefix) for name in files.names)


def open_mtp(files: HeadFiles) -> Opened:
    """See `Layout`."""
    family = _family(files)
    assert family is not None, "it fits"
    return opened_layer(files, family, _target(files))


def opened_layer(files: HeadFiles, family: _Family, layers: PreTrainedConfig) -> Opened:
    """The head of a family's names, of layers of this configuration."""
    index = family.place(layers)
    weights = _weights(files, family, family.prefix(layers))
    if getattr(layers, "layer_types", None):
        layers.layer_types = ["full_attention"] * (index + 1)
    if hasattr(layers, "mlp_only_layers"):
        layers.mlp_only_layers, layers.decoder_sparse_step = [], 1
    config = MTPConfig(layers, (-1,), index, family.is_hidden_first, family.norm_output)
    return Opened(filled(files, lambda: MTPHead(config), weights))


def _family(files: HeadFiles) -> _Family | None:
    text = files.part("text_config") or files.config
    kind = str(text.get("model_type", files.config.get("model_type")))
    return _FAMILIES.get(kind) or _FAMILIES.get(f"{kind}_text")


def _target(files: HeadFiles) -> PreTrainedConfig:
    values = {key: value for key, value in files.config.items() if key not in ("auto_map", "quantization_config")}
    kind = str(values.pop("model_type"))
    try:
        return AutoConfig.for_model(_AS.get(kind, kind), **values).get_text_config()
    except Exception as error:
        raise ModelError(f"{files.folder}: config.json cannot be read: {first_line(error)}") from error


def _weights(files: HeadFiles, family: _Family, prefix: str) -> dict[str, torch.Tensor]:
    """The layer's weights by our names, experts stacked."""
    found: dict[str, torch.Tensor] = {}
    for name in files.names:
        if not name.startswith(prefix) or "rotary_emb" in name:
            continue
        rest = name.removeprefix(prefix)
        theirs = next(one for one in [*family.names, rest] if rest.startswith(one))
        ours = family.names.get(theirs, rest)
        if ours:
            found[ours + rest.removeprefix(theirs)] = files.tensor(name)
    return _stacked(found)


def _stacked(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Experts as transformers has them: one tensor of all gates and ups, and one of all downs."""
    parts: dict[tuple[str, str], dict[int, torch.Tensor]] = {}
    whole: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        expert = _EXPERT.search(name)
        if expert is None:
            whole[name] = weight
        else:
            parts.setdefault((expert[1], expert[3]), {})[int(expert[2])] = weight
    for place in {place for place, _ in parts}:
        kinds: dict[str, Any] = {kind: parts.get((place, kind), {}) for kind in ("gate", "up", "down")}
        if not kinds["gate"].keys() == kinds["up"].keys() == kinds["down"].keys() == set(range(len(kinds["gate"]))):
            raise ModelError(f"{place} are not whole: gate, up and down of each are needed")
        order = range(len(kinds["gate"]))
        pairs = [torch.cat([kinds["gate"][i], kinds["up"][i]]) for i in order]
        whole[f"{place}.gate_up_proj"] = torch.stack(pairs)
        whole[f"{place}.down_proj"] = torch.stack([kinds["down"][i] for i in order])
    return whole


LAYOUT = Layout("layers inside a target", fits, open_mtp)
