"""Block heads by speculators: "dflash", and "dspark", the layout that ours are written in. Tap k is called k."""

from __future__ import annotations

from paceline.heads.formats._block import KINDS, BlockFields, is_causal, opened
from paceline.heads.formats._files import HeadFiles, flag, layers_of, tap_ids
from paceline.heads.formats._layout import Layout, Opened
from paceline.heads.formats.speculators_dspark import KIND, read_head

_IDS = "aux_hidden_state_layer_ids"


def fits(files: HeadFiles) -> bool:
    """See `Layout`."""
    return files.speculators_type in (KIND, "dflash")


def open_block(files: HeadFiles) -> Opened:
    """See `Layout`."""
    if files.speculators_type == KIND:
        return Opened(read_head(files.folder))
    layers = layers_of(files.part("transformer_layer_config"), KINDS)
    said = {**files.config, "markov_rank": 0}
    said["causal"] = is_causal(layers) and not flag(said, "sliding_window_non_causal", False)
    taps = tap_ids(files.config.get(_IDS), _IDS, shift=0)
    return opened(files, layers, BlockFields(taps, flag(said, "sample_from_anchor", False), said))


LAYOUT = Layout("speculators' DFlash and DSpark", fits, open_block)
