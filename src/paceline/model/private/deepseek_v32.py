"""DeepSeek-V3.2: keys are picked by an indexer."""

from paceline.model.private.indexing import indexed

indexed("deepseek_v32", "DeepseekV32")
