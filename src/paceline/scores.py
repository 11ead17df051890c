"""What a model thinks of a continuation that was given to it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """A continuation of a prompt, and the model's own log-probabilities of it, in nats.

    Attributes:
        text: the continuation as it was given; of token ids, their text.
        token_ids: its tokens, with spaces that stood at the prompt's end.
        token_logprobs: of each token, given the prompt and those before it.
        is_greedy: whether it is what the model would say greedily: no token is likelier than its own anywhere.
    """

    text: str
    token_ids: tuple[int, ...]
    token_logprobs: tuple[float, ...]
    is_greedy: bool

    @property
    def logprob(self) -> float:
        """Of the whole continuation."""
        return sum(self.token_logprobs)

    @property
    def num_bytes(self) -> int:
        """Of the text, in UTF-8."""
        return len(self.text.encode())

    @property
    def logprob_per_byte(self) -> float:
        """So that a long continuation may be compared with a short one; minus infinity of no text."""
        return self.logprob / self.num_bytes if self.num_bytes else -float("inf")

    def __len__(self) -> int:
        return len(self.token_ids)
