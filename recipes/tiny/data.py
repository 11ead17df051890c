"""Documents of five domains, a fixed held-out split, the tokenizer and the token stream."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SEPARATOR = "<|endoftext|>"
DOMAINS = ("story", "play", "novel", "command", "maths")
Documents = dict[str, list[str]]
Tokens = npt.NDArray[np.uint16]


def load_documents(corpora: Path) -> tuple[Documents, Documents]:
    """Training and held-out documents by domain: books told apart by a hash, data sets by their own files."""
    train, held_out = {}, {}
    for domain, documents, share in (
        ("story", stories(corpora / "tinystories_slice.txt"), 3),
        ("play", passages(corpora / "tinyshakespeare.txt"), 4),
        ("novel", passages(corpora / "pride_and_prejudice.txt"), 6),
    ):
        train[domain], held_out[domain] = split(documents, share)
    train["command"] = [d for path in sorted(corpora.glob("snips/train_*.gz")) for d in commands(path)]
    held_out["command"] = [d for path in sorted(corpora.glob("snips/validate_*.gz")) for d in commands(path)]
    train["maths"] = list(problems(corpora / "gsm8k" / "train.jsonl.gz"))
    held_out["maths"] = list(problems(corpora / "gsm8k" / "test.jsonl.gz"))
    return {d: unique(train[d], but=held_out[d]) for d in DOMAINS}, {d: unique(held_out[d]) for d in DOMAINS}


def stories(path: Path) -> Iterator[str]:
    return (s for s in (part.strip() for part in path.read_text("utf-8").split(SEPARATOR)) if len(s) > 100)


def passages(path: Path, size: int = 1500) -> Iterator[str]:
    """The book cut at blank lines into passages of about `size` characters, without captions."""
    text = re.sub(r"\[Illustration.*?\]\]?", "", path.read_text("utf-8"), flags=re.S)
    passage: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.strip():
            passage.append(paragraph.strip())
        if sum(map(len, passage)) >= size:
            yield "\n\n".join(passage)
            passage = []
    if passage:
        yield "\n\n".join(passage)


def commands(path: Path) -> Iterator[str]:
    raw = gzip.decompress(path.read_bytes())
    try:
        content = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError:  # one of the files is Latin-1
        content = json.loads(raw.decode("latin-1"))
    ((intent, examples),) = content.items()
    for example in examples:
        slots = {piece["entity"]: piece["text"].strip() for piece in example["data"] if "entity" in piece}
        utterance = " ".join("".join(piece["text"] for piece in example["data"]).split())
        yield (format_command(utterance) + " " + json.dumps({"intent": intent, "slots": slots}, ensure_ascii=False))


def format_command(utterance: str) -> str:
    return f"Command: {utterance}\nJSON:"


def problems(path: Path) -> Iterator[str]:
    for line in gzip.decompress(path.read_bytes()).decode("utf-8").splitlines():
        row = json.loads(line)
        answer = re.sub(r"<<.*?>>", "", row["answer"])
        yield f"Question: {row['question'].strip()}\nAnswer: {answer.strip()}"


def split(documents: Iterable[str], percent: int) -> tuple[list[str], list[str]]:
    train, held_out = [], []
    for document in documents:
        bucket = int.from_bytes(hashlib.sha256(document.encode()).digest()[:4], "big") % 100
        (held_out if bucket < percent else train).append(document)
    return train, held_out


def unique(documents: list[str], but: Iterable[str] = ()) -> list[str]:
    """The documents in order, each once, without those in `but`: nothing held out is ever trained on."""
    barred = set(but)
    return [d for d in dict.fromkeys(documents) if d not in barred]


def train_tokenizer(documents: Documents, size: int = 4096) -> PreTrainedTokenizerFast:
    """A byte-level BPE that splits digits one by one and adds nothing to what it encodes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[SEPARATOR],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((d for domain in DOMAINS for d in documents[domain]), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SEPARATOR,
        eos_token=SEPARATOR,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )


def encode(tokenizer: PreTrainedTokenizerFast, documents: Documents) -> dict[str, list[Tokens]]:
    """Each document as tokens behind the separator."""
    return {
        domain: [
            np.array([tokenizer.eos_token_id, *ids], dtype=np.uint16)
            for ids in tokenizer(texts, verbose=False)["input_ids"]
        ]
        for domain, texts in documents.items()
    }


def stream(documents: dict[str, list[Tokens]], length: int, seed: int) -> Tokens:
    """At least `length` + 1 tokens: all documents in a new random order each epoch."""
    pool = [d for domain in DOMAINS for d in documents[domain]]
    shuffler, parts, total = random.Random(seed), [], 0
    while total <= length:
        shuffler.shuffle(pool)
        parts.append(np.concatenate(pool))
        total += len(parts[-1])
    return np.concatenate(parts)
