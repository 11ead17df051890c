"""EAGLE-3 and P-EAGLE by speculators: layers in a list, their configuration an object of its own. Tap k is called k."""

from __future__ import annotations

from paceline.heads.formats._files import HeadFiles, integer, tap_ids
from paceline.heads.formats._layout import Layout, Opened
from paceline.heads.formats.eagle3 import opened

_IDS = "eagle_aux_hidden_state_layer_ids"


def fits(files: HeadFiles) -> bool:
    """See `Layout`."""
    return files.speculators_type in ("eagle3", "peagle")


def open_speculators(files: HeadFiles) -> Opened:
    """See `Layout`. Where nothing is said of the residual, its trainer means EAGLE-3's behind the norm."""
    layers, ids, is_parallel = files.part("transformer_layer_config"), files.config.get(_IDS), False
    taps = () if ids is None else tap_ids(ids, _IDS, shift=0)
    is_parallel = files.speculators_type == "peagle"
    mask = integer(files.config, "mask_token_id", 0, 2**22) if is_parallel else -1
    return opened(files, layers, taps, {}, norm_before_residual=not is_parallel, mask_token_id=mask)


LAYOUT = Layout("speculators' EAGLE-3 and P-EAGLE", fits, open_speculators)
