"""DFlash as z-lab lays it out, and what SpecForge makes of it: DSpark's transition inside `dflash_config`.

Its numbers are those of layers whose output is meant, -1 being the embedding: tap k + 1.
"""

from __future__ import annotations

from typing import Any

from paceline.errors import ModelError
from paceline.heads.formats._block import KINDS, BlockFields, opened
from paceline.heads.formats._files import HeadFiles, integer, layers_of, tap_ids
from paceline.heads.formats._layout import Layout, Opened

_IDS = "target_layer_ids"


def fits(files: HeadFiles) -> bool:
    """See `Layout`."""
    return not files.speculators_type and bool(files.part("dflash_config") or "DFlashDraftModel" in files.architectures)


def open_dflash(files: HeadFiles) -> Opened:
    """See `Layout`."""
    said = {**files.config, **files.part("dflash_config")}
    projector = said.get("projector_type") or "dflash"
    if projector not in ("dflash", "dspark"):
        raise ModelError(f"the head's projector_type is {projector!r}; allowed: dflash, dspark")
    layers = layers_of(files.config, KINDS)
    ids = said.get(_IDS)
    taps = _usual(said) if ids is None else tap_ids(ids, _IDS, shift=1)
    return opened(files, layers, BlockFields(taps, projector == "dspark", said))


def _usual(said: dict[str, Any]) -> tuple[int, ...]:
    """Where none are named: one for each layer of the head, spread evenly from the second one to the last but three."""
    depth, count = integer(said, "num_target_layers", 4, 2**10), integer(said, "num_hidden_layers", 1, 64)
    if count == 1:
        return (depth // 2 + 1,)
    return tuple(round(1 + i * (depth - 4) / (count - 1)) + 1 for i in range(count))


LAYOUT = Layout("DFlash", fits, open_dflash)
