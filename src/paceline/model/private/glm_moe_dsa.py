"""GLM-5: keys are picked by an indexer."""

from paceline.model.private.indexing import indexed

indexed("glm_moe_dsa", "GlmMoeDsa")
