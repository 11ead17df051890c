"""The sound models whose files are damaged, and what is then done with them: all that a user's load does."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from formats.checkpoints import packers
from formats.checkpoints.folders import LLAMA, write_model
from formats.gguf.files import ARRAY, F32, STRING, U32, Entry, File, pair, tiny_llama
from formats.gguf.hub_models import CONFIGS, write
from formats.mutations.damage import mutated, other_values
from paceline.errors import PacelineError
from paceline.formats.checkpoint import Checkpoint
from paceline.formats.gguf.header import read_header
from paceline.formats.gguf.kinds import KINDS, NAMED
from paceline.formats.opening import find_checkpoint
from paceline.model.building import build
from paceline.model.quantized import quickly

# float16 numbers of a block by their place; any other byte may be anything.
_HALVES = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ2_XXS": (0,),
    "IQ3_S": (0,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
    "TQ2_0": (64,),
}
_BLOCKS = {  # kinds of the blocks of two layers, whose rows are of 256 weights or of 32
    "attn_q": ("Q4_K", "IQ4_XS"),
    "attn_k": ("Q5_K", "TQ2_0"),
    "attn_v": ("Q6_K", "IQ2_XXS"),
    "attn_output": ("Q4_0", "Q5_1"),
    "ffn_gate": ("Q3_K", "IQ3_S"),
    "ffn_up": ("Q2_K", "BF16"),
    "ffn_down": ("Q5_0", "IQ4_NL"),
}
_HIDDEN, _INNER, _KEYS, _VOCABULARY = 256, 32, 16, 10
_ROWS = {"attn_q": 32, "attn_k": _KEYS, "attn_v": _KEYS, "attn_output": _HIDDEN, "ffn_down": _HIDDEN}


@dataclass(frozen=True)
class Subject:
    """A sound model's files, by name within a folder; a load is given the only one, or the folder."""

    name: str
    files: dict[str, bytes]

    @property
    def is_gguf(self) -> bool:
        """One file, not a folder of several."""
        return len(self.files) == 1

    def write(self, place: Path, files: dict[str, bytes] | None = None) -> str:
        """Put the files there; what a load is then given."""
        for name, raw in (files or self.files).items():
            (place / name).write_bytes(raw)
        return str(place / next(iter(self.files))) if self.is_gguf else str(place)

    def damaged(self, draw: random.Random) -> dict[str, bytes]:
        """The files, one of them damaged: mostly where it says what it holds."""
        name = draw.choice(list(self.files))
        raw = self.files[name]
        if name.endswith(".json") and draw.randrange(4):
            return self.files | {name: other_values(raw.decode(), draw).encode()}
        end = len(raw) if draw.randrange(4) == 0 else _header_bytes(name, raw)
        return self.files | {name: mutated(raw, end, draw)}


def _header_bytes(name: str, raw: bytes) -> int:
    if name.endswith(".gguf"):
        return min(tensor.begin for tensor in read_header(memoryview(raw), name).tensors)
    return 8 + int(struct.unpack("<Q", raw[:8])[0]) if name.endswith(".safetensors") else len(raw)


def load(source: str) -> bool:
    """Everything is read, the model made and run; False if it is refused.

    Raises:
        Exception: neither happened.
    """
    try:
        checkpoint = find_checkpoint(source)
        if checkpoint is None:
            return False  # names no quantisation any more: transformers' own
        _use(checkpoint)
    except PacelineError as error:
        if not str(error):
            raise
        return False
    return True


def _use(checkpoint: Checkpoint) -> None:
    tokenizer = checkpoint.tokenizer()
    if tokenizer is not None:
        assert tokenizer.decode(tokenizer("a b\nab")["input_ids"]) is not None
    model = build(checkpoint)
    with quickly(), torch.inference_mode():
        tokens = torch.tensor([[1, 2, 3]])
        if model.config.vocab_size > tokens.max():
            model(tokens)


def ggufs(place: Path) -> list[Subject]:
    """Every architecture in floats, and all kinds of blocks with both kinds of vocabulary."""
    import gguf

    found = [Subject("llama-f32", {"model.gguf": tiny_llama().to_bytes()})]
    found += [Subject(f"blocks-{kind}", {"model.gguf": _in_blocks(kind).to_bytes()}) for kind in ("pieces", "bytes")]
    for name, config in CONFIGS.items():
        torch.manual_seed(0)
        small = deepcopy(config)
        small.num_hidden_layers = 1
        if hasattr(small, "layer_types"):
            small.layer_types = small.layer_types[:1]
        path = write(AutoModelForCausalLM.from_config(small), place / f"{name}.gguf", gguf)
        found.append(Subject(name, {"model.gguf": path.read_bytes()}))
    return found


def _in_blocks(vocabulary: str) -> File:
    numbers = {
        "context_length": 64,
        "embedding_length": _HIDDEN,
        "block_count": 2,
        "feed_forward_length": _INNER,
        "attention.head_count": 2,
        "attention.head_count_kv": 1,
        "attention.key_length": _KEYS,
        "attention.value_length": _KEYS,
        "rope.dimension_count": _KEYS,
    }
    file = tiny_llama()
    words = [p for p in file.pairs if b"tokenizer.ggml" in p] if vocabulary == "pieces" else _byte_vocabulary()
    pairs = [pair("general.architecture", STRING, "llama")]
    pairs += [pair(f"llama.{key}", U32, number) for key, number in numbers.items()]
    pairs += [pair("llama.attention.layer_norm_rms_epsilon", F32, 1e-5), *words]
    entries = [_entry("token_embd", (_HIDDEN, _VOCABULARY), "Q6_K"), _entry("output", (_HIDDEN, _VOCABULARY), "Q8_0")]
    entries += [_entry("output_norm", (_HIDDEN,), "F32")]
    for layer in range(2):
        for part in ("attn_norm", "ffn_norm"):
            entries.append(_entry(f"blk.{layer}.{part}", (_HIDDEN,), "F32"))
        for part, kinds in _BLOCKS.items():
            k = 32 if part in ("attn_output", "ffn_down") else _HIDDEN
            entries.append(_entry(f"blk.{layer}.{part}", (k, _ROWS.get(part, _INNER)), kinds[layer]))
    return File(pairs, entries)


def _byte_vocabulary() -> list[bytes]:
    tokens = ["<s>", "</s>", "a", "b", "Ġ", "Ċ", "ab", "Ġa", "<x>", "!"]
    key = "tokenizer.ggml"
    return [
        pair(f"{key}.model", STRING, "gpt2"),
        pair(f"{key}.pre", STRING, "llama-bpe"),
        pair(f"{key}.tokens", ARRAY, (STRING, tokens)),
        pair(f"{key}.token_type", ARRAY, (5, [3, 3, 1, 1, 1, 1, 1, 1, 4, 1])),
        pair(f"{key}.merges", ARRAY, (STRING, ["a b", "Ġ a"])),
        pair(f"{key}.bos_token_id", U32, 0),
        pair(f"{key}.eos_token_id", U32, 1),
        pair("tokenizer.chat_template", STRING, "{{ messages[0].content }}"),
    ]


def _entry(name: str, dims: tuple[int, ...], kind: str) -> Entry:
    """A tensor of random codes with small scales."""
    shape, number = NAMED[kind], next(number for number, other in KINDS.items() if other.name == kind)
    rng, count = np.random.default_rng(len(name)), int(np.prod(dims))
    if shape.dtype is not None:
        values = torch.from_numpy(rng.standard_normal(count, np.float32) * 0.1).to(shape.dtype)
        return Entry(f"{name}.weight", dims, number, values.view(torch.uint8).numpy().tobytes())
    data = rng.integers(0, 256, (count // shape.weights, shape.num_bytes), dtype=np.uint8)
    for place in _HALVES[kind]:
        data[:, place : place + 2] = np.array([0.01], np.float16).view(np.uint8)
    return Entry(f"{name}.weight", dims, number, data.tobytes())


def folders(place: Path) -> list[Subject]:
    """A model in each layout of Hugging Face's folders."""
    found = []
    for name, (settings, pack) in _PACKED.items():
        folder = place / name
        write_model(folder, LLAMA | {"num_hidden_layers": 1}, settings, lambda _, n, k, pack=pack: (pack(n, k), _NONE))
        files = ("config.json", "model.safetensors")
        found.append(Subject(name, {file: (folder / file).read_bytes() for file in files}))
    return found


_NONE = np.zeros(0)
_GROUPS = {"num_bits": 4, "group_size": 32}
_COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": _GROUPS}},
    "ignore": ["lm_head"],
}


def _drawn(n: int, k: int, sym: bool = True) -> packers.Linear:
    return packers.linear(np.random.default_rng(n + k), n, k, 4, 32, sym=sym)


def _fp8(n: int, k: int) -> dict[str, torch.Tensor]:
    scales = torch.ones(-(-n // 128), -(-k // 128))
    return {"weight": packers.e4m3(np.random.default_rng(n), n, k), "weight_scale_inv": scales}


def _bytes(n: int, k: int) -> dict[str, torch.Tensor]:
    return {"weight": torch.ones(n, k, dtype=torch.int8), "SCB": torch.ones(n)}


def _own(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Memory that is shared with no other linear."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


_Pack = Callable[[int, int], dict[str, torch.Tensor]]
_PACKED: dict[str, tuple[dict[str, object], _Pack]] = {
    "gptq": (
        {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True},
        lambda n, k: packers.gptq(_drawn(n, k)),
    ),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 32}, lambda n, k: packers.awq(_drawn(n, k, sym=False))),
    "packed": (_COMPRESSED, lambda n, k: packers.compressed(_drawn(n, k), zeros=True, g_idx=True)),
    "bytes": (_COMPRESSED | {"format": "int-quantized"}, lambda n, k: packers.compressed(_drawn(n, k), packed=False)),
    "fp8": ({"quant_method": "fp8", "weight_block_size": [128, 128]}, _fp8),
    "int8": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, _bytes),
    "nf4": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        lambda n, k: _own(packers.bnb_4bit(np.random.default_rng(n), n, k, nested=True)[0]),
    ),
}
KINDS_OF_SUBJECTS = {"gguf": ggufs, "folder": folders}
