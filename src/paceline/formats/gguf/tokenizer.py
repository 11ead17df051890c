"""From a file's metadata to a tokenizer of transformers: byte-level BPE, or the BPE of sentencepiece.

What a GGUF file does not say is taken from the models' own tokenizer.json files: how a text is cut (`splits`), and that
sentencepiece's merges follow from the scores of its pieces.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from paceline.errors import ModelError, first_line
from paceline.formats.gguf.ends import CONTROL, token_id
from paceline.formats.gguf.metadata import Metadata
from paceline.formats.gguf.splits import split_of

_KEY = "tokenizer.ggml"
_NORMAL, _UNKNOWN, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 4, 5, 6  # types of tokens, as CONTROL
_SPACE = "▁"
_NONE = ("", "none", "no_vocab")
_SPECIAL = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "unk_token": "unknown_token_id"}
_PADDING = {"pad_token": "padding_token_id"}


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a file, by id."""

    metadata: Metadata
    architecture: str
    tokens: list[str]
    types: list[int]

    @cached_property
    def ids(self) -> dict[str, int]:
        """Ids by token, without those that only fill the table up."""
        pairs = enumerate(zip(self.tokens, self.types, strict=True))
        return {token: i for i, (token, kind) in pairs if kind != _UNUSED or token != f"[PAD{i}]"}

    def special(self, key: str) -> str | None:
        """The token whose id a key says."""
        index = token_id(self.metadata, key, len(self.tokens))
        return None if index is None else self.tokens[index]

    def flag(self, key: str, default: bool) -> bool:
        """A setting, true or false."""
        return self.metadata.flag(f"{_KEY}.{key}", default)

    def added(self) -> list[AddedToken]:
        """Tokens that are found in a text before all else: control tokens, and those that users have defined."""
        wanted = {CONTROL: True, _UNKNOWN: True, _USER_DEFINED: False}
        pairs = zip(self.tokens, self.types, strict=True)
        return [AddedToken(t, special=wanted[kind], normalized=False) for t, kind in pairs if kind in wanted and t]


def read_tokenizer(metadata: Metadata, architecture: str, vocab_size: int) -> PreTrainedTokenizerBase | None:
    """The tokenizer that a file holds, with its chat template; None if it holds none.

    Raises:
        ModelError: a kind that is not known here, or metadata that does not fit together.
    """
    kind = metadata.text(f"{_KEY}.model", "")
    if kind in _NONE:
        return None
    if kind not in _KINDS:
        raise ModelError(f"{metadata.name}: {_KEY}.model is {kind!r}; allowed: {', '.join(_KINDS)}")
    vocabulary = _vocabulary(metadata, architecture, vocab_size)
    try:
        inner, adds_bos = _KINDS[kind](vocabulary)
        inner.add_tokens([token for token in vocabulary.added() if inner.token_to_id(token.content) is not None])
        inner.post_processor = _template(vocabulary, adds_bos)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{metadata.name}: its tokenizer makes no {kind}: {first_line(error)}") from error
    return _wrapped(inner, vocabulary)


def _vocabulary(metadata: Metadata, architecture: str, vocab_size: int) -> Vocabulary:
    tokens = metadata.texts(f"{_KEY}.tokens")
    types = metadata.integers(f"{_KEY}.token_type") if f"{_KEY}.token_type" in metadata else [_NORMAL] * len(tokens)
    if not 1 <= len(tokens) <= vocab_size or len(types) != len(tokens):
        raise ModelError(
            f"{metadata.name} has {len(tokens)} tokens of {len(types)} types; allowed: 1 to {vocab_size} of as many"
        )
    if len(set(tokens)) < len(tokens):
        twice = next(token for i, token in enumerate(tokens) if tokens.index(token) < i)
        raise ModelError(f"{metadata.name}: the token {twice!r} occurs twice; allowed: once")
    return Vocabulary(metadata, architecture, tokens, types)


def _byte_level(vocabulary: Vocabulary) -> tuple[Any, bool]:
    """Byte-level BPE as GPT-2's, and whether it begins texts with a token where a file does not say."""
    metadata = vocabulary.metadata
    split = split_of(metadata.text(f"{_KEY}.pre", ""), vocabulary.architecture)
    merges = [_pair(line, metadata.name) for line in metadata.texts(f"{_KEY}.merges")]
    inner = Tokenizer(BPE(vocabulary.ids, merges, ignore_merges=split.whole_words))
    inner.pre_tokenizer = split.pre_tokenizer()
    normalizer = split.normalizer()
    if normalizer is not None:
        inner.normalizer = normalizer
    inner.decoder = decoders.ByteLevel()
    return inner, split.adds_bos


def _pair(line: str, name: str) -> tuple[str, str]:
    cut = line.find(" ", 1)
    if not 0 < cut < len(line) - 1:
        raise ModelError(f"{name}: a merge is {line!r}; allowed: two tokens with a space between them")
    return line[:cut], line[cut + 1 :]


def _pieces(vocabulary: Vocabulary) -> tuple[Any, bool]:
    """The BPE of sentencepiece: merges by score, bytes for what no piece covers."""
    is_gemma = vocabulary.architecture.startswith("gemma")
    ids = {_respelled(token) if is_gemma else token: i for token, i in vocabulary.ids.items()}
    scores = _scores(vocabulary, by_place=is_gemma)
    skipped = {CONTROL, _UNKNOWN, _BYTE}
    ranked = {token: scores[i] for token, i in ids.items() if vocabulary.types[i] not in skipped}
    unknown = vocabulary.special("unknown_token_id")
    inner = Tokenizer(BPE(ids, merges_of(ids, ranked), unk_token=unknown, fuse_unk=True, byte_fallback=True))
    spaces = normalizers.Replace(" ", _SPACE)
    has_prefix = vocabulary.flag("add_space_prefix", not is_gemma)
    inner.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if has_prefix else spaces
    parts = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    inner.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if has_prefix else parts)
    return inner, True


def _respelled(token: str) -> str:
    """Gemma's runs of spaces are in files as such, and among its pieces as runs of the sign for a space."""
    return _SPACE * len(token) if len(token) > 1 and not token.strip(" ") else token


def _scores(vocabulary: Vocabulary, by_place: bool) -> list[float]:
    """What decides which pieces are merged first: the highest; of Gemma's it is their place, not their score."""
    if by_place:
        return [-float(i) for i in range(len(vocabulary.tokens))]
    scores = [float(x) for x in vocabulary.metadata.numbers(f"{_KEY}.scores")]
    if len(scores) != len(vocabulary.tokens):
        raise ModelError(
            f"{vocabulary.metadata.name} has {len(scores)} scores; allowed: {len(vocabulary.tokens)}, one a token"
        )
    return scores


def merges_of(ids: dict[str, int], scores: dict[str, float]) -> list[tuple[str, str]]:
    """The merges that a vocabulary of scored pieces implies, the best first."""
    found = []
    for token, score in scores.items():
        cuts = ((token[:i], token[i:]) for i in range(1, len(token)))
        found += [(-score, ids[a], ids[b], a, b) for a, b in cuts if a in scores and b in scores]
    return [(a, b) for *_, a, b in sorted(found)]


def _template(vocabulary: Vocabulary, adds_bos: bool) -> Any:
    """The tokens that are put before and after a text."""
    before = _framing(vocabulary, "add_bos_token", adds_bos, "bos_token_id")
    after = _framing(vocabulary, "add_eos_token", False, "eos_token_id")
    single = [*before, "$A:0", *after]
    pair = [*single, *before, "$B:1", *after]
    tokens = [(token, vocabulary.ids[token]) for token in dict.fromkeys([*before, *after])]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=tokens)


def _framing(vocabulary: Vocabulary, flag: str, default: bool, key: str) -> list[str]:
    token = vocabulary.special(key)
    return [token] if token is not None and vocabulary.flag(flag, default) else []


def _wrapped(inner: Any, vocabulary: Vocabulary) -> PreTrainedTokenizerBase:
    special = {name: vocabulary.special(key) for name, key in (_SPECIAL | _PADDING).items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        clean_up_tokenization_spaces=False,
        chat_template=_chat_template(vocabulary.metadata),
        **{name: token for name, token in special.items() if token is not None},
    )


def _chat_template(metadata: Metadata) -> str | dict[str, str] | None:
    """The file's template; if it has others by name, all of them."""
    key = "tokenizer.chat_template"
    default = metadata.text(key) if key in metadata else None
    named = metadata.texts("tokenizer.chat_templates") if "tokenizer.chat_templates" in metadata else []
    others = {name: metadata.text(f"{key}.{name}") for name in named if f"{key}.{name}" in metadata}
    if not others:
        return default
    return others if default is None else {"default": default, **others}


_KINDS = {"gpt2": _byte_level, "llama": _pieces}
