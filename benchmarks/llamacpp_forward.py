"""llama.cpp as a contender of step.py, through `llama-cpp-python`: the same weights, context and tokens.

Like the other contenders it ends with float32 logits of every row on the host, and finds the same cache each time.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from paceline.bench.forwards import TimedForward, TransformersForward
from paceline.bench.timing import Contender
from paceline.formats.gguf.writer import unsupported, write_gguf

_MODULES = ("llama_cpp", "gguf")
# Seconds between turns, so that nobody's threads spin beside another's turn: OpenMP threads spin on after a forward,
# 8 to 11 ms of processor time in the 50 ms after it. llama.cpp as pip builds it on Linux uses OpenMP, and finds torch's
# libgomp in the process: both then work with the same threads. Built without OpenMP it makes and joins threads within
# each `llama_decode`; nothing spins on (0.05 ms), but a new thread was seen to start on the core of the thread that
# made it, and forwards of one or two rows then to take twice as long now and then.
REST = 0.03
_PREFILL = 64  # tokens of the context in one forward
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}  # relative, on whole logits


class CannotCompeteError(Exception):
    """Why llama.cpp is not measured; the rest of the benchmark goes on."""


class LlamaCppForward:
    """Forwards over one cached context, which llama.cpp's cache is cut back to after each.

    Every row count has a llama.cpp context of its own: llama.cpp keeps its compute graph from one forward to the
    next only if their shapes are the same, as they are in steady decoding and are not when row counts take turns.
    """

    def __init__(self, path: Path, context: Sequence[int], dtype: torch.dtype = torch.bfloat16) -> None:
        self._api = import_llamacpp()
        self._context = list(context)
        self._dtype = dtype
        self._threads = torch.get_num_threads()
        self._open: dict[int, Any] = {}  # rows -> llama.cpp's context, its cache filled
        self._model = self._load(path)
        self._vocab_size = self._api.llama_vocab_n_tokens(self._api.llama_model_get_vocab(self._model))
        self._closing = ExitStack()
        self._closing.callback(self._api.llama_model_free, self._model)

    def _load(self, path: Path) -> Any:
        """llama.cpp's model, read into memory of its own as torch's weights are, so that the file may go again."""
        parameters = self._api.llama_model_default_params()
        parameters.n_gpu_layers = 0
        parameters.load_mode = self._api.LLAMA_LOAD_MODE_NONE
        loaded = self._api.llama_model_load_from_file(bytes(path), parameters)
        if not loaded:
            raise CannotCompeteError("it cannot open the file that was written for it")
        return loaded

    def contender(self, name: str, rows: int) -> Contender:
        """A forward of `rows` rows, with the same tokens as the other contenders."""
        tokens = [self._context[i % len(self._context)] for i in range(rows)]
        state = self._state(rows)
        batch = self._batch(tokens, len(self._context), has_logits=True)
        return Contender(name, lambda: self._run(state, batch, rows), lambda: self._cut(state))

    def disagreement(self, theirs: TimedForward, rows: int) -> float:
        """The relative error of the logits (rows, V) against another's, in the 2-norm."""
        logits = []
        for contender in (self.contender("", rows), theirs.contender("", rows)):
            logits.append(torch.as_tensor(contender.run()).double())  # a copy: llama.cpp's buffer is its own
            contender.reset()
        ours, wanted = logits
        return float((ours - wanted).norm() / wanted.norm().clamp(min=1e-12))

    def about(self) -> dict[str, Any]:
        """Versions and settings, ready for JSON."""
        return {
            "version": self._api.__version__,
            "system": self._api.llama_print_system_info().decode().strip(" |"),
            "threads": self._threads,
            "has_openmp": b"OPENMP = 1" in self._api.llama_print_system_info(),
            "cache": "float32" if self._dtype == torch.float32 else "float16",
        }

    def close(self) -> None:
        """Free everything."""
        self._closing.close()

    def _state(self, rows: int) -> Any:
        """A llama.cpp context for forwards of `rows` rows, its cache filled with the context."""
        if rows not in self._open:
            state = self._api.llama_init_from_model(self._model, self._parameters(rows))
            if not state:
                raise CannotCompeteError("it cannot make a context")
            self._closing.callback(self._api.llama_free, state)
            self._fill(state)
            self._open[rows] = state
        return self._open[rows]

    def _parameters(self, rows: int) -> Any:
        parameters = self._api.llama_context_default_params()
        parameters.n_ctx = len(self._context) + rows
        parameters.n_batch = parameters.n_ubatch = max(rows, _PREFILL)
        parameters.n_threads = parameters.n_threads_batch = self._threads
        if self._dtype == torch.float32:  # the defaults round keys and values to float16, in the cache or on the way
            parameters.type_k = parameters.type_v = self._api.GGML_TYPE_F32
            parameters.flash_attn_type = self._api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        return parameters

    def _fill(self, state: Any) -> None:
        for start in range(0, len(self._context), _PREFILL):
            self._decode(state, self._batch(self._context[start : start + _PREFILL], start, has_logits=False))

    def _batch(self, tokens: Sequence[int], start: int, has_logits: bool) -> Any:
        """A batch of one sequence at positions `start` and on, with logits for every row or for none."""
        batch = self._api.llama_batch_init(len(tokens), 0, 1)
        self._closing.callback(self._api.llama_batch_free, batch)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, start + i, has_logits
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        return batch

    def _run(self, state: Any, batch: Any, rows: int) -> NDArray[np.float32]:
        self._decode(state, batch)
        return np.ctypeslib.as_array(self._api.llama_get_logits(state), (rows, self._vocab_size))

    def _decode(self, state: Any, batch: Any) -> None:
        code = self._api.llama_decode(state, batch)
        if code != 0:
            raise CannotCompeteError(f"llama_decode gave {code}")

    def _cut(self, state: Any) -> None:
        memory = self._api.llama_get_memory(state)
        if not self._api.llama_memory_seq_rm(memory, 0, len(self._context), -1):
            raise CannotCompeteError("it cannot cut its cache back")


def open_llamacpp(
    model: PreTrainedModel, context: Sequence[int], theirs: TransformersForward, counts: Sequence[int]
) -> tuple[LlamaCppForward, dict[str, Any]]:
    """llama.cpp ready to compete at some row counts, and what to say of it.

    Raises:
        CannotCompeteError: it is not installed, cannot run the model, or its logits are not transformers'.
    """
    _check_possible(model)
    forward = _written_for(model, context)
    with ExitStack() as failing:
        failing.callback(forward.close)
        error = max(forward.disagreement(theirs, count) for count in counts)
        allowed = _TOLERANCE[model.dtype]
        if not error <= allowed:
            text = f"its logits differ from transformers' by {error:.2g} (relative; allowed {allowed:.0e})"
            raise CannotCompeteError(text)
        failing.pop_all()
    return forward, {**forward.about(), "largest_error": error}


def _written_for(model: PreTrainedModel, context: Sequence[int]) -> LlamaCppForward:
    """A forward over a file of a model's own weights."""
    import_llamacpp()  # first, for without it no file is needed
    with tempfile.TemporaryDirectory(prefix="paceline-") as folder:
        path = Path(folder) / "model.gguf"
        try:
            write_gguf(model, path)
        except OSError as error:
            raise CannotCompeteError(f"its file cannot be written: {error}") from error
        return LlamaCppForward(path, context, model.dtype)


def import_llamacpp() -> Any:
    """The module of llama-cpp-python, silenced.

    Raises:
        CannotCompeteError: it cannot be imported, or is too old.
    """
    logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL + 1)
    try:
        api = importlib.import_module("llama_cpp")
    except (ImportError, OSError, RuntimeError) as error:  # a build for another processor or system
        raise CannotCompeteError(f"llama_cpp cannot be imported: {error}") from error
    if not hasattr(api, "LLAMA_LOAD_MODE_NONE"):
        raise CannotCompeteError(f"llama-cpp-python {api.__version__} is too old; 0.3.36 is known to work")
    return api


def _check_possible(model: PreTrainedModel) -> None:
    if any(importlib.util.find_spec(module) is None for module in _MODULES):
        raise CannotCompeteError('not installed (pip install "paceline[peers]")')
    if model.device.type != "cpu":
        raise CannotCompeteError("it is measured on the CPU only")
    if (reason := unsupported(model)) is not None:
        raise CannotCompeteError(reason)
