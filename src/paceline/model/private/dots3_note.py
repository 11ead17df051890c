"""dots3: keys are picked by an indexer."""

from paceline.model.private.indexing import indexed

indexed("dots3_note", "Dots3NoteText")
