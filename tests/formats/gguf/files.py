"""GGUF files made by hand, byte by byte, so that each can be wrong in one place."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

U32, F32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
FORMS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def value(kind: int, what: Any) -> bytes:
    """A value without its type; that of an array is (type of items, items)."""
    if kind == ARRAY:
        inner, items = what
        return struct.pack("<IQ", inner, len(items)) + b"".join(value(inner, item) for item in items)
    return text(what) if kind == STRING else struct.pack("<" + FORMS[kind], what)


def pair(key: str, kind: int, what: Any) -> bytes:
    return text(key) + struct.pack("<I", kind) + value(kind, what)


@dataclass
class Entry:
    """A tensor: dimensions as in files, the fastest first."""

    name: str
    dims: Sequence[int]
    kind: int
    data: bytes
    offset: int | None = None  # where it says it lies; where it lies by default


@dataclass
class File:
    """A whole file; what is not given is right."""

    pairs: list[bytes] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    version: int = 3
    magic: bytes = b"GGUF"
    num_tensors: int | None = None
    num_pairs: int | None = None
    alignment: int = 32

    def header(self) -> bytes:
        tensors = len(self.entries) if self.num_tensors is None else self.num_tensors
        pairs = len(self.pairs) if self.num_pairs is None else self.num_pairs
        return self.magic + struct.pack("<IQQ", self.version, tensors, pairs)

    def to_bytes(self) -> bytes:
        table, data = b"", b""
        for entry in self.entries:
            offset = len(data) if entry.offset is None else entry.offset
            dims = b"".join(struct.pack("<Q", dim) for dim in entry.dims)
            table += (
                text(entry.name) + struct.pack("<I", len(entry.dims)) + dims + struct.pack("<IQ", entry.kind, offset)
            )
            data += entry.data + bytes(-len(entry.data) % self.alignment)
        head = self.header() + b"".join(self.pairs) + table
        return head + bytes(-len(head) % self.alignment) + data

    def write(self, path: Path) -> Path:
        path.write_bytes(self.to_bytes())
        return path


TINY = {"heads": 2, "kv_heads": 1, "width": 4, "hidden": 8, "inner": 12, "vocab": 10, "layers": 1}


def tiny_llama() -> File:
    """A llama of one layer in F32, with a vocabulary of sentencepiece's kind: all that a reader looks at."""
    t = TINY
    numbers = {
        "context_length": 64,
        "embedding_length": t["hidden"],
        "block_count": t["layers"],
        "feed_forward_length": t["inner"],
        "attention.head_count": t["heads"],
        "attention.head_count_kv": t["kv_heads"],
        "rope.dimension_count": t["width"],
    }
    pairs = [pair("general.architecture", STRING, "llama")]
    pairs += [pair(f"llama.{key}", U32, number) for key, number in numbers.items()]
    pairs += [pair("llama.attention.layer_norm_rms_epsilon", F32, 1e-5), *_vocabulary()]
    return File(pairs, [Entry(name, dims, 0, _floats(i, dims)) for i, (name, dims) in enumerate(_shapes().items())])


def _vocabulary() -> list[bytes]:
    tokens = ["<unk>", "<s>", "</s>", "<0x0A>", "▁", "a", "b", "▁a", "ab", "[PAD9]"]
    key = "tokenizer.ggml"
    return [
        pair(f"{key}.model", STRING, "llama"),
        pair(f"{key}.tokens", ARRAY, (STRING, tokens)),
        pair(f"{key}.scores", ARRAY, (F32, [-float(i) for i in range(10)])),
        pair(f"{key}.token_type", ARRAY, (5, [2, 3, 3, 6, 1, 1, 1, 1, 1, 5])),
        pair(f"{key}.bos_token_id", U32, 1),
        pair(f"{key}.eos_token_id", U32, 2),
        pair(f"{key}.unknown_token_id", U32, 0),
        pair(f"{key}.add_bos_token", BOOL, True),
    ]


def _shapes() -> dict[str, tuple[int, ...]]:
    t = TINY
    hidden, queries, keys = t["hidden"], t["heads"] * t["width"], t["kv_heads"] * t["width"]
    layer = {
        "attn_norm": (hidden,),
        "attn_q": (hidden, queries),
        "attn_k": (hidden, keys),
        "attn_v": (hidden, keys),
        "attn_output": (queries, hidden),
        "ffn_norm": (hidden,),
        "ffn_gate": (hidden, t["inner"]),
        "ffn_up": (hidden, t["inner"]),
        "ffn_down": (t["inner"], hidden),
    }
    outer = {"token_embd": (hidden, t["vocab"]), "output_norm": (hidden,)}
    names = {**outer, **{f"blk.0.{part}": dims for part, dims in layer.items()}}
    return {f"{name}.weight": dims for name, dims in names.items()}


def _floats(seed: int, dims: Sequence[int]) -> bytes:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(list(dims), generator=generator).numpy().tobytes()
