"""EAGLE-1, EAGLE-2 and HASS: token and last hidden state mixed by `fc`, and plain layers behind it."""

from __future__ import annotations

from paceline.heads.eagle import Eagle1Head, EagleConfig
from paceline.heads.formats._files import HeadFiles, filled, layers_of
from paceline.heads.formats._layout import Layout, Opened
from paceline.heads.formats.eagle3 import KINDS, kind_of


def fits(files: HeadFiles) -> bool:
    """See `Layout`: layers without a norm before the first, and none behind the last."""
    if files.speculators_type or _is_block(files):
        return False
    names = files.names
    lacks = ("layers.0.input_layernorm.weight", "norm.weight", "hidden_norm.weight")
    return {"fc.weight", "layers.0.self_attn.q_proj.weight"} <= names.keys() and not names.keys() & {*lacks}


def _is_block(files: HeadFiles) -> bool:
    return any("DFlash" in name or "DSpark" in name for name in files.architectures)


def open_eagle1(files: HeadFiles) -> Opened:
    """See `Layout`."""
    layers = layers_of({**files.config, **kind_of(files, "layers.0.")}, KINDS)
    config = EagleConfig(layers, taps=(-1,), target_hidden_size=int(layers.hidden_size))
    weights = {name: files.tensor(name) for name in files.names if "rotary_emb" not in name}
    has_bias, has_embedding = "fc.bias" in weights, "embed_tokens.weight" in weights
    return Opened(filled(files, lambda: Eagle1Head(config, has_bias, has_embedding), weights))


LAYOUT = Layout("EAGLE-1 and EAGLE-2", fits, open_eagle1)
