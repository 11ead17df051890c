"""What `echo` puts in front of each sample: its prompt, as lm-eval reads it, and what the model thought of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from paceline.engine.request import Request
from paceline.sampling.logprobs import PromptLogprob
from paceline.server.shapes import CompletionLogprobs, finite
from paceline.text.stream import Decode, TextStream


class Echo:
    """The prompt of one request in its response.

    Args:
        request: whose prompt it is.
        given: the prompt as it was sent, if that was a text of which all is read.
        decode: token ids to text.
    """

    def __init__(self, request: Request, given: str | None, decode: Decode) -> None:
        self._ids = request.tokens[: request.num_prompt_tokens]
        self._texts = [decode(self._ids)] if request.prompt_logprobs is None else _pieces(self._ids, decode)
        self.text = "".join(self._texts) if given is None else given

    def add_to(self, logprobs: CompletionLogprobs, thoughts: Sequence[PromptLogprob | None], num_top: int) -> None:
        """Have log probabilities begin with those of the prompt, the first token's being null."""
        for token_id, text, thought in zip(self._ids, self._texts, thoughts, strict=True):
            logprobs.add(token_id, text, *((None, ()) if thought is None else (thought.logprob, thought.top[:num_top])))
        logprobs.go_on_at(len(self.text))


def prompt_logprobs_of(request: Request, num_top: int, text_of: Callable[[int], str]) -> list[Any] | None:
    """`prompt_logprobs` in vLLM's form: of each token of the prompt itself and the likeliest, the first's null."""
    if request.prompt_logprobs is None:
        return None
    ids = request.tokens[: request.num_prompt_tokens]
    return [_entries(*pair, num_top, text_of) for pair in zip(ids, request.prompt_logprobs, strict=True)]


def _entries(
    token_id: int, thought: PromptLogprob | None, num_top: int, text_of: Callable[[int], str]
) -> dict[str, Any] | None:
    if thought is None:
        return None
    told = {token_id: (thought.logprob, thought.rank)}
    told |= {one: (logprob, i + 1) for i, (one, logprob) in enumerate(thought.top[:num_top]) if one != token_id}
    return {
        str(one): {"logprob": finite(logprob), "rank": rank, "decoded_token": text_of(one)}
        for one, (logprob, rank) in told.items()
    }


def _pieces(ids: Sequence[int], decode: Decode) -> list[str]:
    """The text that each token adds."""
    stream = TextStream(decode, (), ())
    pieces = [stream.push(token_id, check_stop=False)[0] for token_id in ids]
    return [*pieces[:-1], pieces[-1] + stream.finish()] if pieces else []
