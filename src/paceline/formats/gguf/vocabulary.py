"""A tokenizer of transformers as metadata of a GGUF file: byte-level BPE, or the BPE of sentencepiece."""

from __future__ import annotations

import json
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from paceline.errors import ModelError
from paceline.formats.gguf.ends import CONTROL
from paceline.formats.gguf.splits import SPLITS, Split
from paceline.formats.gguf.tokenizer import merges_of

_NORMAL, _UNKNOWN, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 4, 5, 6
_Parts = dict[str, Any]


def write_vocabulary(writer: Any, tokenizer: PreTrainedTokenizerBase | None, model: PreTrainedModel) -> None:
    """Tokens, merges, special tokens and chat template; a file without a vocabulary if there is no tokenizer.

    Raises:
        ModelError: the tokenizer is of a kind that is not known here.
    """
    if tokenizer is None:
        writer.add_tokenizer_model("no_vocab")
        return
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(f"the tokenizer is a {type(tokenizer).__name__}; allowed: one of the tokenizers library")
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    kind, has_bytes = parts["model"]["type"], parts["model"].get("byte_fallback")
    if kind != "BPE":
        raise ModelError(f"the tokenizer's model is {kind}; allowed: BPE")
    (_write_pieces if has_bytes else _write_byte_level)(writer, parts, model.config.vocab_size)
    _write_special(writer, tokenizer, model)


def _write_byte_level(writer: Any, parts: _Parts, size: int) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split_name(parts))
    tokens, types = _tokens(parts, size)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in _merges(parts)])


def _write_pieces(writer: Any, parts: _Parts, size: int) -> None:
    """Scores say in which order pieces are merged: the first merge that makes a piece decides."""
    merges, vocabulary = _merges(parts), parts["model"]["vocab"]
    tokens, types = _tokens(parts, size)
    best: dict[str, float] = {}
    for rank, (left, right) in enumerate(merges):
        best.setdefault(left + right, -float(rank))
    scores = [best.get(token, -float(len(merges) + index)) for index, token in enumerate(tokens)]
    normal = {token: scores[i] for i, token in enumerate(tokens) if types[i] in (_NORMAL, _USER_DEFINED)}
    if set(merges_of(vocabulary, normal)) != set(merges):
        raise ModelError("the tokenizer's merges do not follow from its pieces; allowed: those of sentencepiece")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_add_space_prefix("Prepend" in json.dumps(parts["normalizer"]))


def _merges(parts: _Parts) -> list[tuple[str, str]]:
    pairs = [m.split(" ") if isinstance(m, str) else m for m in parts["model"]["merges"]]
    return [(left, right) for left, right in pairs]


def _tokens(parts: _Parts, size: int) -> tuple[list[str], list[int]]:
    """Tokens and their types, as many as the model has; names that mean nothing where the tokenizer has none."""
    added = {token["id"]: token for token in parts["added_tokens"]}
    by_id = {index: token for token, index in parts["model"]["vocab"].items()}
    by_id |= {index: token["content"] for index, token in added.items()}
    if max(by_id) >= size:
        raise ModelError(f"the tokenizer has {max(by_id) + 1} tokens; allowed: {size}, the model's")
    unknown, has_bytes = parts["model"]["unk_token"], parts["model"]["byte_fallback"]
    tokens = [by_id.get(index, f"[PAD{index}]") for index in range(size)]
    return tokens, [_type(by_id.get(i), added.get(i), unknown, has_bytes) for i in range(size)]


def _type(token: str | None, added: _Parts | None, unknown: str | None, has_bytes: bool) -> int:
    if token is None:
        return _UNUSED
    if token == unknown:
        return _UNKNOWN
    if added is not None:
        return CONTROL if added["special"] else _USER_DEFINED
    is_byte = has_bytes and len(token) == len("<0x00>") and token.startswith("<0x") and token.endswith(">")
    return _BYTE if is_byte else _NORMAL


def split_name(parts: _Parts) -> str:
    """What llama.cpp calls the way in which a byte-level tokenizer cuts texts.

    Raises:
        ModelError: it has no name that is known here.
    """
    found = _signature(parts["pre_tokenizer"]), parts["normalizer"] is not None
    for name, split in SPLITS.items():
        if (_signature_of(split), split.composes) == found:
            return name
    raise ModelError(f"the tokenizer cuts texts by {found[0]}; allowed: as one of {', '.join(SPLITS)}")


def _signature_of(split: Split) -> list[str]:
    return _signature(json.loads(split.pre_tokenizer().__getstate__()))


def _signature(part: _Parts | None) -> list[str]:
    """What a pre-tokenizer does, step by step."""
    if part is None:
        return []
    if part["type"] == "Sequence":
        return [step for inner in part["pretokenizers"] for step in _signature(inner)]
    ignored = {"trim_offsets"}  # say nothing of tokens
    return [json.dumps({key: value for key, value in part.items() if key not in ignored}, sort_keys=True)]


def _write_special(writer: Any, tokenizer: Any, model: PreTrainedModel) -> None:
    named = {
        writer.add_bos_token_id: tokenizer.bos_token_id,
        writer.add_eos_token_id: tokenizer.eos_token_id,
        writer.add_unk_token_id: tokenizer.unk_token_id,
        writer.add_pad_token_id: tokenizer.pad_token_id,
    }
    for others, add in zip(
        _other_ends(tokenizer, model), (writer.add_eot_token_id, writer.add_eom_token_id), strict=False
    ):
        named[add] = others
    for add, index in named.items():
        if index is not None:
            add(index)
    plain, framed = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    writer.add_add_bos_token(framed[0] != plain[0])
    writer.add_add_eos_token(framed[-1] != plain[-1])
    if isinstance(tokenizer.chat_template, dict):
        writer.add_chat_template([{"name": n, "template": t} for n, t in tokenizer.chat_template.items()])
    elif tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _other_ends(tokenizer: Any, model: PreTrainedModel) -> list[int]:
    """End tokens of the generation settings beside the tokenizer's own."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    several = ends if isinstance(ends, list) else [ends]
    return [index for index in several if index is not None and index != tokenizer.eos_token_id]
