"""Captions in two languages: pairs, a joint tokenizer, batches of pairs that are about as long."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

PAD, END = "<pad>", "</s>"
Pair = tuple[list[int], list[int]]  # token ids of a German text and of an English one, each with its end


def read_captions(folder: Path, split: str, language: str) -> list[str]:
    """The captions of a split of Multi30k, one a line, in files `train.de.gz` and the like."""
    with gzip.open(folder / f"{split}.{language}.gz", "rt", encoding="utf-8") as file:
        return [line.strip() for line in file]


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE of both languages: whatever stands in a source can be copied."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[PAD, END], initial_alphabet=alphabet)
    inner.train_from_iterator(texts, trainer)
    inner.post_processor = processors.TemplateProcessing(f"$A {END}", special_tokens=[(END, inner.token_to_id(END))])
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=PAD, eos_token=END)


def pairs_of(folder: Path, split: str, tokenizer: PreTrainedTokenizerFast) -> list[Pair]:
    """The pairs of a split, encoded."""
    german, english = (tokenizer(read_captions(folder, split, name))["input_ids"] for name in ("de", "en"))
    return list(zip(german, english, strict=True))


def joined(pairs: Sequence[Pair], rng: np.random.Generator) -> list[Pair]:
    """All pairs in another order, some two or three at a time as one text: so that longer ones are learnt too."""
    order = [pairs[i] for i in rng.permutation(len(pairs))]
    found: list[Pair] = []
    while order:
        count = int(rng.choice([1, 2, 3], p=[0.6, 0.2, 0.2]))
        parts, order = order[:count], order[count:]
        source, target = ([t for part in parts for t in part[side][:-1]] for side in (0, 1))
        found.append(([*source, parts[0][0][-1]], [*target, parts[0][1][-1]]))
    return found


def batches(pairs: Sequence[Pair], rng: np.random.Generator, num_tokens: int, pad: int) -> Iterator[tuple[Tensor, ...]]:
    """An epoch's (sources, targets), padded: of like lengths, so that little is padding; at most `num_tokens` each."""
    order = sorted(joined(pairs, rng), key=lambda pair: (len(pair[1]), len(pair[0])))
    groups: list[list[Pair]] = [[]]
    for pair in order:
        longest = max(len(side) for one in (*groups[-1], pair) for side in one)
        if groups[-1] and longest * (len(groups[-1]) + 1) > num_tokens:
            groups.append([])
        groups[-1].append(pair)
    for index in rng.permutation(len(groups)):
        yield tuple(_padded([pair[side] for pair in groups[index]], pad) for side in (0, 1))


def _padded(rows: Sequence[Sequence[int]], pad: int) -> Tensor:
    out = torch.full((len(rows), max(map(len, rows))), pad)
    for row, ids in zip(out, rows, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    return out
