"""What quantisation costs in quality, beside llama.cpp's on the same weights and the same windows of tokens.

    python benchmarks/quality.py CORPORA [--model FOLDER] [--windows 64] [--length 256] [--json FILE]

CORPORA is the folder that recipes/tiny was trained from, whose held-out documents of four domains are read. Every
contender gives logits for the same windows; what is told is perplexity, and the mean divergence of its distributions
from those of the float32 model. Needs `gguf` and `llama-cpp-python` for llama.cpp's lines.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import importlib.util
import itertools
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from paceline.bundled import DEFAULT_TARGET, bundled_path
from paceline.console import Table, show, write_json
from paceline.formats.at_load import FloatFolder, QuantizedAtLoad
from paceline.formats.blocks import BlockRows
from paceline.formats.dequantize import dequantize
from paceline.formats.gguf.writer import write_gguf
from paceline.model.building import build

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes" / "tiny"))
from data import load_documents  # the split that the bundled models were trained by

DOMAINS = ("story", "play", "novel", "maths")
LLAMACPP = {"Q8_0": 7, "Q4_0": 2, "Q4_K_M": 15}  # llama.cpp's numbers of its mixes
Tokens = list[int]
Forward = Callable[[Tokens], torch.Tensor]  # logits (length, V) of a window


@dataclass
class Line:
    """A contender's figures. `change` of the loss is in nats a token, with its standard error over windows."""

    name: str
    bits: float
    perplexity: float
    change: float
    error: float
    divergence: float
    types: dict[str, int] = field(default_factory=dict)


def windows(corpora: Path, folder: Path, count: int, length: int) -> list[Tokens]:
    """Beginnings of held-out documents behind the token that begins a text, as many of each domain."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    start = [tokenizer.bos_token_id]
    _, held_out = load_documents(corpora)
    found = []
    for domain in DOMAINS:
        texts = (tokenizer(text, add_special_tokens=False).input_ids for text in held_out[domain])
        long = (start + tokens[: length - 1] for tokens in texts if len(tokens) >= length // 2)
        found += list(itertools.islice(long, count // len(DOMAINS)))
    return found


class Scores:
    """The float32 model's own distributions, and what others lose."""

    def __init__(self, forward: Forward, texts: Sequence[Tokens]) -> None:
        self._texts = texts
        self._wanted = [forward(tokens).log_softmax(-1) for tokens in texts]
        self._losses = [_losses(wanted, tokens) for wanted, tokens in zip(self._wanted, texts, strict=True)]

    def line(self, name: str, bits: float, forward: Forward, types: dict[str, int]) -> Line:
        """A contender's figures."""
        changes, divergences, total, count = [], [], 0.0, 0
        for tokens, wanted, losses in zip(self._texts, self._wanted, self._losses, strict=True):
            found = forward(tokens).log_softmax(-1)
            own = _losses(found, tokens)
            changes.append(float((own - losses).mean()))
            divergences.append((wanted.exp() * (wanted - found)).sum(-1))
            total, count = total + float(own.sum()), count + len(own)
        before = float(torch.cat(self._losses).mean())
        error = float(np.std(changes, ddof=1) / math.sqrt(len(changes)))
        divergence = float(torch.cat(divergences).mean())
        return Line(name, bits, math.exp(total / count), total / count - before, error, divergence, types)


def _losses(log_probabilities: torch.Tensor, tokens: Tokens) -> torch.Tensor:
    return -log_probabilities[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0].double()


def forward_of(model: PreTrainedModel) -> Forward:
    """A transformers model's logits in float32."""

    def forward(tokens: Tokens) -> torch.Tensor:
        with torch.inference_mode():
            return model(torch.tensor([tokens])).logits[0].float()

    return forward


def ours(folder: Path, mix: str, scores: Scores) -> Iterator[Line]:
    """A mix of ours: its weights' values in float32 arithmetic, then with inputs in int8 as the kernels have them."""
    checkpoint = QuantizedAtLoad(FloatFolder(folder), mix)
    blocks = {w.name: w.value for w in checkpoint.weights() if isinstance(w.value, BlockRows)}
    bits = 8 * sum(v.data.numel() for v in blocks.values()) / sum(v.num_rows * v.k for v in blocks.values())
    types = dict(Counter(value.type.name for value in blocks.values()))
    model = _load(folder)
    with torch.no_grad():
        for name, value in blocks.items():
            model.get_parameter(name).copy_(dequantize(value))
    yield scores.line(f"ours {mix}, float inputs", bits, forward_of(model), types)
    yield scores.line(f"ours {mix}", bits, forward_of(build(checkpoint)), types)


class LlamaCpp:
    """llama.cpp on a file, keys and values in float32."""

    def __init__(self, api: Any, path: Path, length: int) -> None:
        self._api, self._closing = api, ExitStack()
        parameters = api.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self._model = api.llama_model_load_from_file(bytes(path), parameters)
        self._closing.callback(api.llama_model_free, self._model)
        settings = api.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = length
        settings.n_threads = settings.n_threads_batch = torch.get_num_threads()
        settings.type_k = settings.type_v = api.GGML_TYPE_F32
        settings.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._state = api.llama_init_from_model(self._model, settings)
        self._closing.callback(api.llama_free, self._state)
        self._size = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self._model))
        self.close = self._closing.close

    def __call__(self, tokens: Tokens) -> torch.Tensor:
        """Logits of a window."""
        self._api.llama_memory_clear(self._api.llama_get_memory(self._state), True)
        batch = self._api.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, i, True
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        code = self._api.llama_decode(self._state, batch)
        self._api.llama_batch_free(batch)
        if code != 0:
            raise RuntimeError(f"llama_decode gave {code}")
        logits = np.ctypeslib.as_array(self._api.llama_get_logits(self._state), (len(tokens), self._size))
        return torch.from_numpy(logits.copy())


def theirs(folder: Path, scores: Scores, length: int) -> Iterator[Line]:
    """llama.cpp on the same weights: in float32, then in its own mixes."""
    api = importlib.import_module("llama_cpp")
    silence = api.llama_log_callback(lambda level, text, data: None)
    api.llama_log_set(silence, ctypes.c_void_p(0))
    with tempfile.TemporaryDirectory(prefix="paceline-") as place:
        source = Path(place) / "f32.gguf"
        write_gguf(_load(folder), source)
        yield _line(api, "llama.cpp F32", source, scores, length)
        for mix, number in LLAMACPP.items():
            path = Path(place) / f"{mix}.gguf"
            settings = api.llama_model_quantize_default_params()
            settings.ftype, settings.nthread = number, torch.get_num_threads()
            if api.llama_model_quantize(bytes(source), bytes(path), ctypes.byref(settings)) != 0:
                raise RuntimeError(f"llama.cpp cannot quantise to {mix}")
            yield _line(api, f"llama.cpp {mix}", path, scores, length)


def _line(api: Any, name: str, path: Path, scores: Scores, length: int) -> Line:
    matrices = [t for t in importlib.import_module("gguf").GGUFReader(path).tensors if len(t.shape) == 2]
    bits = 8 * sum(int(t.n_bytes) for t in matrices) / sum(int(t.n_elements) for t in matrices)
    types = dict(Counter(t.tensor_type.name for t in matrices))
    with _closed(LlamaCpp(api, path, length)) as model:
        return scores.line(name, bits, model, types)


@contextmanager
def _closed(model: LlamaCpp) -> Iterator[LlamaCpp]:
    try:
        yield model
    finally:
        model.close()


def _load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def lines(arguments: argparse.Namespace) -> Iterator[Line]:
    """All contenders' figures, one after another."""
    folder, length = arguments.model, arguments.length
    texts = windows(arguments.corpora, folder, arguments.windows, length)
    print(f"{len(texts)} windows, {sum(map(len, texts))} tokens", flush=True)
    model = _load(folder)
    scores = Scores(forward_of(model), texts)
    yield scores.line("float32", 32.0, forward_of(model), {})
    yield scores.line("bfloat16", 16.0, forward_of(model.to(torch.bfloat16)), {})
    for mix in ("int8", "int4"):
        yield from ours(folder, mix, scores)
    if importlib.util.find_spec("llama_cpp") is None:
        print("llama.cpp is not installed: pip install 'paceline[peers]'")
        return
    yield from theirs(folder, scores, length)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("--model", type=Path, default=bundled_path(DEFAULT_TARGET))
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = list(lines(arguments))
    columns = ("", "bits a weight", "perplexity", "change", "± 95 %", "divergence, nats", "blocks")
    table = Table(f"Quality of {arguments.model.name}", columns)
    for line in found:
        percent = [f"{100 * math.expm1(line.change):+.3f} %", f"{196 * line.error:.3f} %"]
        types = ", ".join(f"{count} {kind}" for kind, count in sorted(line.types.items()))
        table.rows.append(
            (line.name, f"{line.bits:.2f}", f"{line.perplexity:.4f}", *percent, f"{line.divergence:.6f}", types)
        )
    show(table)
    write_json(arguments.json, {"model": arguments.model.name, "lines": [asdict(line) for line in found]})


if __name__ == "__main__":
    main()
