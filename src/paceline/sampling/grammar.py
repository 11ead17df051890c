"""Structured output: a regular expression, a list of choices or a JSON schema becomes the tokens allowed at each place.

The grammars themselves are llguidance's (https://github.com/guidance-ai/llguidance); this adapts them. It knows at each
place a way to complete the text (closing.py), so that this can be kept within a limit. Knows nothing of logits, drafts
or requests. V is the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer

from paceline.errors import ConfigError, RequestError
from paceline.params import SamplingParams
from paceline.sampling.closing import Closer, Closing, Mask, allowed

_END = "<|end of grammar|>"  # llguidance wants one end token; here the grammar's end is separate from the model's
_WHITESPACE = r" |\n {0,24}"  # between JSON tokens, if at all
_WHITESPACE_OPTIONS = ("whitespace_flexible", "whitespace_pattern")
_NUM_KEPT = 64  # compiled grammars, the latest
_MIN_TRIES, _MAX_TRIES, _TRIED = 2, 16, 1024
_AMPLE = 2  # where this many times what completes a text is allowed, nothing shorter is sought


@dataclass(frozen=True)
class Words:
    """A tokenizer as grammars need it."""

    inner: LLTokenizer
    end: int  # id of `_END`
    vocab_size: int  # the model's; that of `inner` may be larger
    closer: Closer


class Grammar:
    """Where one output stands in its grammar. It starts before the first token that is generated.

    If `closing` is not None it completes the text, and the text can be kept within `room` tokens: `fits`, `way_out`.
    """

    def __init__(
        self, matcher: LLMatcher, words: Words, eos_token_ids: Iterable[int], room: int, closing: Closing | None
    ) -> None:
        self._matcher = matcher
        self._words = words
        self._eos = sorted(eos_token_ids)
        self._room = room  # tokens that may still be generated
        self._closing = closing
        self._behind: dict[int, Closing | None] = {}  # closings behind tokens, once asked for
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
        closing = self._closing_behind(token)
        if token in self._eos and self._matcher.is_accepting():
            self._has_ended = True
        elif not self._matcher.consume_token(token):
            raise RequestError(f"token {token} does not follow the grammar: {_reason(self._matcher.get_error())}")
        self._mask, self._behind = None, {}
        self._room, self._closing = self._room - 1, closing

    def fits(self, token: int) -> bool:
        """True if the text can be completed in the tokens that remain behind this one, as far as is known."""
        return self._closing is None or self._closing_behind(token) is not None

    @property
    def num_tries(self) -> int:
        """How many tokens may be asked whether they fit before the way out is taken; fewer where asking takes long."""
        return max(_MIN_TRIES, min(_MAX_TRIES, _TRIED // max(len(self._closing or ()), 1)))

    def way_out(self) -> int | None:
        """A token that fits; None if there is none, or no way to complete the text is known."""
        if self._closing:
            return self._closing[0]
        tokens = self._eos or self._words.closer.some(self._matcher)
        return None if self._closing is None else next(filter(self.fits, tokens), None)

    @property
    def is_finished(self) -> bool:
        """True if nothing can follow: EOS was generated, or the text is complete and no EOS or no token remains.

        Where a model has no EOS, nothing follows a complete text either if nothing that does fits.
        """
        if self._has_ended or (self._eos and self._room > 0) or not self._matcher.is_accepting():
            return self._has_ended
        return self._room == 0 or not self._here().any() or (self._closing is not None and self.way_out() is None)

    def forced(self) -> tuple[int, ...]:
        """The tokens that must come next, as far as only one can at each place."""
        if self._has_ended:
            return ()
        ahead = self._matcher.deep_copy()  # asking moves the matcher, and the sampler's must not depend on who asks
        tokens = ahead.compute_ff_tokens()
        ahead.consume_tokens(tokens)
        ends = self._eos if len(self._eos) == 1 and ahead.is_stopped() and ahead.is_accepting() else []
        return (*tokens, *ends)

    def copy(self) -> Grammar:
        """The same place, to go on from separately."""
        twin = Grammar(self._matcher.deep_copy(), self._words, self._eos, self._room, self._closing)
        twin._mask, twin._behind, twin._has_ended = self._mask, {**self._behind}, self._has_ended
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Grammar:
        return self.copy()

    def _closing_behind(self, token: int) -> Closing | None:
        if self._closing is None or token in self._eos:
            return self._closing
        if token not in self._behind:
            self._behind[token] = self._found_behind(self._closing, token)
        return self._behind[token]

    def _found_behind(self, closing: Closing, token: int) -> Closing | None:
        if closing[:1] == (token,):
            return closing[1:]
        return self._words.closer.after(self._matcher, token, closing, self._room - 1)

    def _here(self) -> Mask:
        if self._mask is None:
            self._mask = self._computed()
        return self._mask

    def _computed(self) -> Mask:
        mask = allowed(self._matcher, self._words.vocab_size, self._words.end)
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
        self._found = lru_cache(_NUM_KEPT)(lambda *source: self._words.closer.find(self._compiled(*source)))
        self._shortest = lru_cache(_NUM_KEPT)(lambda *source: self._words.closer.shortest(self._compiled(*source)))

    def start(self, params: SamplingParams, eos_token_ids: Iterable[int], max_tokens: int) -> Grammar | None:
        """The grammar that the parameters ask for, at the start of an output of at most `max_tokens`.

        None if they ask for none.

        Raises:
            ConfigError: it does not compile, or no text that follows it is known to fit `max_tokens`.
            RequestError: there is no tokenizer.
        """
        source = _source(params)
        if source is None:
            return None
        matcher = self._compiled(*source)
        closing = self._closing(*source, max_tokens) if _is_bounded(params) else None
        return Grammar(matcher.deep_copy(), self._words, eos_token_ids, max_tokens, closing)

    @cached_property
    def _words(self) -> Words:
        if self._definition is None:
            raise RequestError("this model has no tokenizer; a grammar needs one")
        tokenizer = Tokenizer.from_str(self._definition())
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.add_special_tokens([_END])
        end = int(tokenizer.token_to_id(_END) or 0)  # just added: never None
        size = max(self._vocab_size, end + 1)
        inner = LLTokenizer(tokenizer.to_str(), n_vocab=size, eos_token=end)
        return Words(inner, end, self._vocab_size, Closer(inner, self._vocab_size))

    def _compile(self, name: str, grammar: str) -> LLMatcher:
        matcher = LLMatcher(self._words.inner, grammar, log_level=0)
        if matcher.is_error():
            raise ConfigError(f"{name} is no grammar that can be followed: {_reason(matcher.get_error())}")
        start = Grammar(matcher.deep_copy(), self._words, (), 1, None)
        if not start._here().any() and not matcher.is_accepting():
            raise ConfigError(f"{name} allows no text at all; allowed: a grammar that at least one text follows")
        return matcher

    def _closing(self, name: str, grammar: str, max_tokens: int) -> Closing | None:
        """A closing of the grammar at its start, of at most `max_tokens`; None if none at all was found."""
        closing = self._found(name, grammar)
        if closing is not None and len(closing) * _AMPLE > max_tokens:
            closing = self._shortest(name, grammar)
        if closing is not None and len(closing) > max_tokens:
            rule = f"at least {len(closing)}, which the shortest text that {name} allows takes"
            raise ConfigError(f"max_tokens is {max_tokens}; allowed: {rule}")
        return closing


def _source(params: SamplingParams) -> tuple[str, str] | None:
    """The parameter that asks for a grammar, and the grammar in llguidance's own form."""
    try:
        if params.regex is not None:
            return "regex", LLMatcher.grammar_from_regex(params.regex)
        if params.choice is not None:
            return "choice", LLMatcher.grammar_from_lark("start: " + " | ".join(map(json.dumps, params.choice)))
        if params.json_schema is not None:
            return "response_format", _grammar_from_schema(params.json_schema)
    except UnicodeEncodeError as error:
        raise ConfigError(f"the grammar is no Unicode text: {error}") from error
    return None


def _grammar_from_schema(schema: str) -> str:
    """The grammar of a JSON schema, with whitespace as the schema's own "x-guidance" says or within bounds."""
    named = json.loads(schema)
    if named is False:
        return LLMatcher.grammar_from_json_schema(schema)
    options = {} if named is True else named.get("x-guidance")
    is_asked = isinstance(options, dict) and not options.keys().isdisjoint(_WHITESPACE_OPTIONS)
    schema = "{}" if named is True else schema
    if is_asked:
        return LLMatcher.grammar_from_json_schema(schema)
    return LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_pattern": _WHITESPACE})


def _is_bounded(params: SamplingParams) -> bool:
    """Whether the output is kept within max_tokens: always, unless `response_format` says otherwise."""
    asked = (params.response_format or {}).get("complete", True)
    if not isinstance(asked, bool):
        raise ConfigError(f"complete of response_format is {asked!r}; allowed: true or false")
    return asked


def _reason(message: str) -> str:
    """The one line that matters of what llguidance says."""
    lines = [line.strip() for line in message.splitlines() if line.strip()] or ["no reason given"]
    return next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0])
