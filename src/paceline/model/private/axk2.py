"""A.X-K2: keys are picked by an indexer."""

from paceline.model.private.indexing import indexed

indexed("axk2", "AXK2")
