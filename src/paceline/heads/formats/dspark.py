"""DSpark as DeepSpec lays it out: one flat configuration, an embedding and a language-model head of its own."""

from __future__ import annotations

from paceline.heads.formats._block import KINDS, BlockFields, opened
from paceline.heads.formats._files import HeadFiles, layers_of, tap_ids
from paceline.heads.formats._layout import Layout, Opened

_IDS = "target_layer_ids"


def fits(files: HeadFiles) -> bool:
    """See `Layout`."""
    return not files.speculators_type and any("DSparkModel" in name for name in files.architectures)


def open_dspark(files: HeadFiles) -> Opened:
    """See `Layout`."""
    taps = tap_ids(files.config.get(_IDS), _IDS, shift=1)
    return opened(files, layers_of(files.config, KINDS), BlockFields(taps, True, files.config))


LAYOUT = Layout("DSpark", fits, open_dspark)
