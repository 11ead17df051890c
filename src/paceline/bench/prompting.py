"""From prompts to token ids: through the model's chat template where it has one, and only what fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from paceline.console import progress
from paceline.errors import ConfigError
from paceline.llm import LLM
from paceline.text.chat import chat_ids
from paceline.text.prompt_formats import Prompt
from paceline.text.tokenizer import Tokenizer

AS_CHAT = "every turn through the model's chat template, after plain decoding's own answers to the turns before"
AS_TEXT = "the first turn alone, as text: the model has no chat template"


@dataclass(frozen=True)
class Encoded:
    """One prompt to measure: of a conversation one turn with all that stands before it."""

    prompt: Prompt
    ids: tuple[int, ...]


@dataclass
class EncodedSet:
    """All that fit, in order."""

    form: str
    prompts: list[Encoded] = field(default_factory=list)
    num_too_long: int = 0  # turns that leave no room for an output, or follow one that does not


def encode_prompts(llm: LLM, prompts: Sequence[Prompt], max_tokens: int) -> EncodedSet:
    """The prompts as a model reads them. Those that leave no room for `max_tokens` tokens are left out and counted.

    Raises:
        ConfigError: the model has no tokenizer, or none of the prompts fits.
    """
    if llm.tokenizer is None:
        raise ConfigError("this model has no tokenizer; allowed: one that reads prompts")
    context = min(llm.target.max_length, llm.target.capacity)
    chats = bool(llm.tokenizer.inner.chat_template)
    found = EncodedSet(AS_CHAT if chats else AS_TEXT)
    with progress("reading prompts", len(prompts)) as advance:
        for prompt in prompts:
            turns = _conversation(llm, llm.tokenizer, prompt, max_tokens) if chats else _text(llm.tokenizer, prompt)
            for count, encoded in enumerate(turns):
                if len(encoded.ids) + max_tokens > context:
                    found.num_too_long += len(prompt.turns) - count if chats else 1
                    break
                found.prompts.append(encoded)
            advance()
    if not found.prompts:
        raise ConfigError(f"no prompt fits: each and max_tokens ({max_tokens}) exceed the context of {context}")
    return found


def _text(tokenizer: Tokenizer, prompt: Prompt) -> Iterator[Encoded]:
    yield Encoded(prompt, tuple(tokenizer.encode(prompt.text)))


def _conversation(llm: LLM, tokenizer: Tokenizer, prompt: Prompt, max_tokens: int) -> Iterator[Encoded]:
    """Turn after turn; the answer to one is decoded only when the next is asked for."""
    messages: list[dict[str, str]] = []
    ids: tuple[int, ...] = ()
    for turn in prompt.turns:
        if ids:
            answer = llm.generate(list(ids), drafters="none", max_tokens=max_tokens, temperature=0.0)
            messages.append({"role": "assistant", "content": answer.text})
        messages.append({"role": "user", "content": turn})
        ids = tuple(chat_ids(tokenizer, messages))
        yield Encoded(Prompt(prompt.category, (turn,)), ids)
