"""What a drafter learns from: the target's own continuations of prompts, as token ids in an append-only file.

Hidden states are thousands of bytes a token and are computed anew; a token is two bytes here, four where the vocabulary
is large. A document counts once its line in the index is complete, so a kill at any moment costs the batch at hand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from paceline.errors import ConfigError, RequestError
from paceline.options import read_call
from paceline.streams import decode

if TYPE_CHECKING:
    from paceline.llm import LLM

Tokens = NDArray[np.unsignedinteger[Any]]
MIX = {0.0: 0.3, 0.7: 0.3, 1.0: 0.4}  # temperatures and the share of continuations at each
_BATCH = 32  # continuations decoded together
_HELD_OUT = 10  # percent of prompts
_TOKENS, _INDEX = "tokens.bin", "documents.jsonl"


@dataclass(frozen=True)
class Question:
    """A prompt as token ids, the kind of text that it stands for, and whether it is kept for evaluation."""

    ids: tuple[int, ...]
    category: str = "text"
    is_held_out: bool = False


@dataclass(frozen=True)
class Entry:
    """One line of the index."""

    category: str
    is_held_out: bool
    temperature: float
    num_prompt_tokens: int
    num_tokens: int  # prompt and output


@dataclass(frozen=True)
class Document:
    """A prompt and its continuation."""

    entry: Entry
    tokens: Tokens

    @property
    def prompt(self) -> list[int]:
        """Its token ids."""
        return [int(token) for token in self.tokens[: self.entry.num_prompt_tokens]]


class Corpus:
    """Documents in a folder. One writer; what a kill has left half done is cut off when it is opened."""

    def __init__(self, folder: Path, vocab_size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._dtype = np.dtype("<u2" if vocab_size <= 2**16 else "<u4")
        self._tokens, self._index = folder / _TOKENS, folder / _INDEX
        self._entries = self._whole_lines()
        self._cut()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def num_tokens(self) -> int:
        """Of all documents, prompts among them."""
        return sum(entry.num_tokens for entry in self._entries)

    @property
    def num_bytes(self) -> int:
        """On disk, and in memory while it is trained on."""
        return self.num_tokens * self._dtype.itemsize

    def append(self, documents: Sequence[tuple[Entry, Sequence[int]]]) -> None:
        """Add documents: their tokens first, then the lines that make them count."""
        with self._tokens.open("ab") as file:
            for _, ids in documents:
                file.write(np.array(ids, self._dtype).tobytes())
        with self._index.open("a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(asdict(entry)) + "\n" for entry, _ in documents)
        self._entries.extend(entry for entry, _ in documents)

    def read(self, is_held_out: bool) -> list[Document]:
        """Those to train on, or those to evaluate on."""
        tokens = np.fromfile(self._tokens, self._dtype)
        ends = np.cumsum([entry.num_tokens for entry in self._entries])
        pieces = np.split(tokens, ends[:-1])
        chosen = zip(self._entries, pieces, strict=True)
        return [Document(entry, piece) for entry, piece in chosen if entry.is_held_out == is_held_out]

    def _whole_lines(self) -> list[Entry]:
        text = self._index.read_text(encoding="utf-8") if self._index.exists() else ""
        return [Entry(**json.loads(line)) for line in text.split("\n")[:-1]]

    def _cut(self) -> None:
        """Leave the files what is whole in both."""
        size = self._tokens.stat().st_size // self._dtype.itemsize if self._tokens.exists() else 0
        while self.num_tokens > size:
            self._entries.pop()
        with self._tokens.open("ab") as file:
            file.truncate(self.num_bytes)
        self._index.write_text("".join(json.dumps(asdict(e)) + "\n" for e in self._entries), encoding="utf-8")


@dataclass(frozen=True)
class Plan:
    """How many continuations of which prompts, and how they are drawn: the same for the same seed."""

    questions: Sequence[Question]
    num_documents: int
    length: int  # tokens of a document at most
    mix: Mapping[float, float]
    seed: int = 0

    def __post_init__(self) -> None:
        """ConfigError where nothing could be trained on, or nothing be evaluated on."""
        if not self.questions:
            raise ConfigError("there are no prompts to train on; allowed: at least one")
        if not self.mix or min(self.mix) < 0 or min(self.mix.values()) <= 0:
            raise ConfigError(f"the temperature mix is {dict(self.mix)}; allowed: temperatures from 0, positive shares")

    def job(self, index: int) -> tuple[Question, float, int]:
        """The prompt, temperature and seed of a document; prompts come in rounds, each in an order of its own."""
        place, turn = index % len(self.questions), index // len(self.questions)
        order = np.random.default_rng([self.seed, 1, turn]).permutation(len(self.questions))
        drawn = np.random.default_rng([self.seed, 2, index])
        shares = np.array(list(self.mix.values()))
        temperature = float(drawn.choice(list(self.mix), p=shares / shares.sum()))
        return self.questions[order[place]], temperature, int(drawn.integers(2**63))


def generate(llm: LLM, plan: Plan, corpus: Corpus, advance: Callable[[float], None] = lambda done: None) -> None:
    """Have the target write what the plan wants and the corpus lacks; `advance` is told the documents there are."""
    while len(corpus) < plan.num_documents:
        corpus.append(_batch(llm, plan, range(len(corpus), min(len(corpus) + _BATCH, plan.num_documents))))
        advance(len(corpus))


def _batch(llm: LLM, plan: Plan, indices: range) -> list[tuple[Entry, Sequence[int]]]:
    jobs, requests = [plan.job(index) for index in indices], []
    for question, temperature, seed in jobs:
        options = {"temperature": temperature, "seed": seed, "max_tokens": plan.length - len(question.ids)}
        requests += llm.runtime.requests_of([list(question.ids)], read_call(None, options))
    decode(llm.runtime.thread, requests, None)
    outputs = llm.runtime.outputs(requests, True)
    return [_entry(*job[:2], output.token_ids) for job, output in zip(jobs, outputs, strict=True)]


def _entry(question: Question, temperature: float, output: Sequence[int]) -> tuple[Entry, Sequence[int]]:
    whole = [*question.ids, *output]
    return Entry(question.category, question.is_held_out, temperature, len(question.ids), len(whole)), whole


def questions_of(llm: LLM, texts: Sequence[tuple[str, str]], length: int) -> list[Question]:
    """Prompts (category, text) as the model reads them, through its chat template where it has one.

    Of one that takes more than half of a document's `length` the last tokens are kept.

    Raises:
        RequestError: the model has no tokenizer.
    """
    if llm.tokenizer is None:
        raise RequestError("this model has no tokenizer; allowed: one that reads prompts")
    found = {tuple(_ids(llm, text)[-(length // 2) :]): category for category, text in texts}
    return split([Question(ids, category) for ids, category in found.items() if ids])


def split(questions: Sequence[Question]) -> list[Question]:
    """The same with a tenth of them held out, by their tokens: so the same in every run.

    Of two or more, one is at least, and one is not.
    """
    chosen = [_number(question.ids) % 100 < _HELD_OUT for question in questions]
    if len(questions) > 1 and len(set(chosen)) == 1:
        chosen[0] = not chosen[0]
    return [replace(question, is_held_out=held) for question, held in zip(questions, chosen, strict=True)]


def _number(ids: Sequence[int]) -> int:
    return int.from_bytes(hashlib.sha256(np.array(ids, "<u4").tobytes()).digest()[:4], "big")


def _ids(llm: LLM, text: str) -> list[int]:
    from paceline.text.chat import chat_ids

    assert llm.tokenizer is not None
    if llm.tokenizer.inner.chat_template:
        return chat_ids(llm.tokenizer, [{"role": "user", "content": text}])
    return list(llm.encode(text))
