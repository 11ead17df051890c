"""Texts of tokens to draft from: a bounded store with fast lookup of the longest suffix, and its file.

Knows nothing of requests, drafters or tokenizers.
"""

from __future__ import annotations

from paceline.drafters._store.drafting import draft
from paceline.drafters._store.file import StoreFile, Vocabulary
from paceline.drafters._store.ring import BYTES_PER_TOKEN, Hit, Texts, TextStore, owner_key

__all__ = ["BYTES_PER_TOKEN", "Hit", "StoreFile", "TextStore", "Texts", "Vocabulary", "draft", "owner_key"]
