"""Names of the contenders of `paceline bench decode` and `busy` that others know. Knows nothing of torch."""

from __future__ import annotations

GENERATE = "transformers generate"
LOOKUP = "transformers prompt lookup"
ASSISTED = "transformers assisted"
PLAIN = "paceline plain"
PLAIN_AGAIN = "paceline plain again"  # the same once more: its ratio to the first is the noise
AUTO = "paceline auto"  # with the drafters and the pacer that a user gets unasked
