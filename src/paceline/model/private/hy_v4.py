"""HY-V4: keys are picked by an indexer."""

from paceline.model.private.indexing import indexed

indexed("hy_v4", "HYV4")
