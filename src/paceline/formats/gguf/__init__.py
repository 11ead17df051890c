"""GGUF files: read as checkpoints, described, and written."""

from paceline.formats.gguf.checkpoint import GGUFCheckpoint, open_gguf
from paceline.formats.gguf.reader import is_gguf

__all__ = ["GGUFCheckpoint", "is_gguf", "open_gguf"]
