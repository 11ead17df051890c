"""Structured output: a regular expression, a list of choices or a JSON schema becomes the tokens allowed at each place.

The grammars themselves are llguidance's (https://github.com/guidance-ai/llguidance); this adapts them. Knows nothing of
logits, drafts or requests. V is the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray
from tokenizers import Tokenizer

from paceline.errors import ConfigError, RequestError
from paceline.params import SamplingParams

Mask = NDArray[np.bool_]

_END = "<|end of grammar|>"  # llguidance wants one end token; here the grammar's end is separate from the model's
_NUM_KEPT = 64  # compiled grammars, the latest


class Grammar:
    """Where one output stands in its grammar. It starts before the first token that is generated."""

    def __init__(self, matcher: LLMatcher, vocab_size: int, private: int, eos_token_ids: Iterable[int]) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._private = private  # id of `_END`
        self._eos = sorted(eos_token_ids)
        self._mask: Mask | None = None  # of this place, once asked for
        self._has_ended = False

    def mask(self) -> Mask:
        """The tokens (V,) allowed here: text that the grammar can go on with, and EOS where it may end.

        Where only one text can follow, its tokens are the tokenizer's own: "name" is not spelled in letters.

        Raises:
            RequestError: the grammar has become too complex to follow.
        """
        mask = self._here()
        if self._matcher.is_error():
            raise RequestError(f"the grammar cannot be followed any further: {_reason(self._matcher.get_error())}")
        return mask

    def advance(self, token: int) -> None:
        """Append a token.

        Raises:
            RequestError: it is not allowed here.
        """
        if token in self._eos and self._matcher.is_accepting():
            self._has_ended = True
        elif not self._matcher.consume_token(token):
            raise RequestError(f"token {token} does not follow the grammar: {_reason(self._matcher.get_error())}")
        self._mask = None

    @property
    def is_finished(self) -> bool:
        """True if nothing can follow: EOS was generated, or the model has none and the text is complete."""
        if self._has_ended or self._eos:
            return self._has_ended
        return not self._here().any() and self._matcher.is_accepting()

    def forced(self) -> tuple[int, ...]:
        """The tokens that must come next, as far as only one can at each place."""
        if self._has_ended:
            return ()
        ahead = self._matcher.deep_copy()  # asking moves the matcher, and the law's must not depend on who asks
        tokens = ahead.compute_ff_tokens()
        ahead.consume_tokens(tokens)
        ends = self._eos if len(self._eos) == 1 and ahead.is_stopped() and ahead.is_accepting() else []
        return (*tokens, *ends)

    def copy(self) -> Grammar:
        """The same place, to go on from separately."""
        twin = Grammar(self._matcher.deep_copy(), self._vocab_size, self._private, self._eos)
        twin._mask, twin._has_ended = self._mask, self._has_ended
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Grammar:
        return self.copy()

    def _here(self) -> Mask:
        if self._mask is None:
            self._mask = self._computed()
        return self._mask

    def _computed(self) -> Mask:
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        mask = np.unpackbits(bits, count=self._vocab_size, bitorder="little").view(np.bool_)
        mask[self._private : self._private + 1] = False  # a slice: it may lie beyond the model's vocabulary
        mask[self._eos] = self._matcher.is_accepting()
        mask.setflags(write=False)  # copies share it
        return mask


class Compiler:
    """Makes grammars over one tokenizer. The tokenizer is read at the first of them: 150,000 tokens take a second."""

    def __init__(self, definition: Callable[[], str] | None, vocab_size: int) -> None:
        """`definition` gives the tokenizer as Hugging Face's JSON; None if the model has no tokenizer."""
        self._definition = definition
        self._vocab_size = vocab_size
        self._compiled = lru_cache(_NUM_KEPT)(self._compile)

    def start(self, params: SamplingParams, eos_token_ids: Iterable[int]) -> Grammar | None:
        """The grammar that the parameters ask for, at its start; None if they ask for none.

        Raises:
            ConfigError: it does not compile.
            RequestError: there is no tokenizer.
        """
        source = _source(params)
        if source is None:
            return None
        return Grammar(self._compiled(*source).deep_copy(), self._vocab_size, self._words[1], eos_token_ids)

    @cached_property
    def _words(self) -> tuple[LLTokenizer, int]:
        """The tokenizer as llguidance reads it, and the id of `_END` in it."""
        if self._definition is None:
            raise RequestError("this model was loaded without a tokenizer; a grammar needs one")
        tokenizer = Tokenizer.from_str(self._definition())
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.add_special_tokens([_END])
        end = int(tokenizer.token_to_id(_END) or 0)  # just added: never None
        size = max(self._vocab_size, end + 1)
        return LLTokenizer(tokenizer.to_str(), n_vocab=size, eos_token=end), end

    def _compile(self, name: str, grammar: str) -> LLMatcher:
        words, private = self._words
        matcher = LLMatcher(words, grammar, log_level=0)
        if matcher.is_error():
            raise ConfigError(f"{name} is no grammar that can be followed: {_reason(matcher.get_error())}")
        start = Grammar(matcher.deep_copy(), self._vocab_size, private, ())
        if not start._here().any() and not matcher.is_accepting():
            raise ConfigError(f"{name} allows no text at all; allowed: a grammar that at least one text follows")
        return matcher


def _source(params: SamplingParams) -> tuple[str, str] | None:
    """The parameter that asks for a grammar, and the grammar in llguidance's own form."""
    try:
        if params.regex is not None:
            return "regex", LLMatcher.grammar_from_regex(params.regex)
        if params.choice is not None:
            return "choice", LLMatcher.grammar_from_lark("start: " + " | ".join(map(json.dumps, params.choice)))
        if params.json_schema is not None:
            return "response_format", LLMatcher.grammar_from_json_schema(params.json_schema)
    except UnicodeEncodeError as error:
        raise ConfigError(f"the grammar is no Unicode text: {error}") from error
    return None


def _reason(message: str) -> str:
    """The one line that matters of what llguidance says."""
    lines = [line.strip() for line in message.splitlines() if line.strip()] or ["no reason given"]
    return next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0])
