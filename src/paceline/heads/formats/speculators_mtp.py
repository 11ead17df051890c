"""The same layers by speculators: `mtp_layers.0` by MiMo's names, whatever the target's family is."""

from __future__ import annotations

from paceline.heads.formats._files import HeadFiles, layers_of
from paceline.heads.formats._layout import Layout, Opened
from paceline.heads.formats.mtp import MIMO, QWEN_KINDS, opened_layer

_TYPES = ("mtp",)
_KINDS = {kind: kind for kind in (*QWEN_KINDS, "qwen3", "qwen2", "llama")} | {"mimo": "qwen2"}


def fits(files: HeadFiles) -> bool:
    """See `Layout`."""
    return files.speculators_type in _TYPES


def open_speculators(files: HeadFiles) -> Opened:
    """See `Layout`. MiMo's, of Qwen2's layers, take the hidden state first, all others the token."""
    layers = layers_of(files.part("transformer_layer_config"), _KINDS)
    return opened_layer(files, MIMO._replace(is_hidden_first=layers.model_type == "qwen2"), layers)


LAYOUT = Layout("speculators' MTP", fits, open_speculators)
