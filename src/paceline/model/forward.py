"""Two ways to run a model over rows: through its own modules, and from a recording of them.

`ModuleForward` calls the model each time, with batch-invariant attention in PyTorch's operations. `RecordedForward`
calls it a few times, writes down what it does, and from then on runs that by the native kernels without Python in
between. The model stays the only description of its architecture.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
import torch
from transformers import PreTrainedModel

from paceline.model.attention import batch_invariant_attention
from paceline.model.emitting import EmittingStep, Frames
from paceline.model.frames import Fed, set_chunk, set_trees
from paceline.model.interface import ForwardStep, run_rows
from paceline.model.linears import NativeLinear, num_embeddings
from paceline.model.picking import Picks, biases_of
from paceline.model.pool import CachedSequence, LayerCache, PagePool
from paceline.model.prefix import PAGE_SIZE
from paceline.model.rotary import contexts
from paceline.model.rows import Rows, TreeWork, chunk_rows, tree_rows
from paceline.model.scanning import Scan, ScannedRows
from paceline.model.seq2seq.handing import input_embeddings
from paceline.model.seq2seq.rows import looking, set_sources, source_of, source_rows
from paceline.native.drafting import Drafting
from paceline.native.frame import Frame
from paceline.native.library import Library, library
from paceline.native.ops import Runner
from paceline.native.products import Weights
from paceline.native.program import Program
from paceline.native.recording import NotRecordableError, Recording
from paceline.native.scaling import NotScalableError, ProgramFamily, Recorded, ScaledProgram
from paceline.native.states import StateFrame

# Row counts that a program is made for; others are padded to them.
ROW_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_FEW, _MANY = 2, ROW_COUNTS[-1]  # recorded, and with them all between; one row alone has a program of its own


class Forward(Protocol):
    """What a `Decoder` asks of a model."""

    @property
    def is_exact_by_construction(self) -> bool:
        """True if nothing but the kernels, which give a row the same bits at every count, computes values."""

    def logits(self, work: Sequence[TreeWork], num_rows: int) -> torch.Tensor:
        """Logits (num_rows, V) in floats, the work's rows first and in order; valid until the next call."""

    def prefill(self, sequence: CachedSequence, tokens: Sequence[int]) -> None:
        """Store the keys and values of up to 64 tokens behind a sequence's committed positions."""

    def prefill_logits(self, sequence: CachedSequence, tokens: Sequence[int]) -> torch.Tensor:
        """Do what `prefill` does, bit for bit, and go on to logits (tokens, V); valid until the next call."""

    def prepare(self) -> None:
        """Do now what would otherwise hold up the first forward of a row count."""


def forward_for(model: PreTrainedModel, pool: PagePool, last_position: int, keeps: bool = False) -> Forward:
    """The way to run `model`, whose pieces have been replaced already; positions are kept up to `last_position`.

    One that `keeps` keeps what heads read as well (hosting.py).
    """
    found = library()
    if found is not None and any(isinstance(module, NativeLinear) for module in model.modules()):
        try:
            return RecordedForward(model, pool, last_position, found, keeps)
        except NotRecordableError:
            pass  # it looks at values in Python: its own modules, with native linears
    return ModuleForward(model, pool, last_position, keeps)


class ModuleForward:
    """The model's own forward; attention in PyTorch's operations, on any device."""

    is_exact_by_construction = False

    def __init__(self, model: PreTrainedModel, pool: PagePool, last_position: int, keeps: bool = False) -> None:
        self._model, self._pool, self._last_position, self._keeps = model, pool, last_position, keeps
        self._is_pinned = len(contexts(model)) > 1

    def logits(self, work: Sequence[TreeWork], num_rows: int) -> torch.Tensor:
        """See `Forward`."""
        return self._run(self._model, self._tree_rows(work, num_rows))

    def prefill(self, sequence: CachedSequence, tokens: Sequence[int]) -> None:
        """See `Forward`."""
        self._run_chunk(self._model.base_model, sequence, tokens)

    def prefill_logits(self, sequence: CachedSequence, tokens: Sequence[int]) -> torch.Tensor:
        """See `Forward`."""
        return self._run_chunk(self._model, sequence, tokens)[: len(tokens)]

    def prepare(self) -> None:
        """See `Forward`. Nothing is kept by row count."""

    def _tree_rows(self, work: Sequence[TreeWork], num_rows: int) -> Rows:
        rows = tree_rows(work, num_rows, self._pool.device)
        if self._model.config.is_encoder_decoder:
            rows.sources = source_rows(looking(work), num_rows, self._pool.device)
        return rows

    def _run_chunk(self, model: PreTrainedModel, sequence: CachedSequence, tokens: Sequence[int]) -> torch.Tensor:
        rows = chunk_rows(sequence, tokens, self._pool.device)
        if self._model.config.is_encoder_decoder:
            rows.sources = source_rows([(source_of(sequence), len(rows))], len(rows), self._pool.device)
        return self._run(model, rows)

    def _run(self, model: PreTrainedModel, rows: Rows) -> torch.Tensor:
        positions, pins = self._positions(rows), rows.pins if self._is_pinned else None
        return run_rows(model, self._step(rows), rows.tokens, positions, pinned=pins)

    def _positions(self, rows: Rows) -> Any:
        """The rotary positions of rows, (R,) or by axis."""
        return np.minimum(
            rows.positions if rows.offsets is None else rows.positions + rows.offsets, self._last_position
        )

    def _step(self, rows: Rows) -> ForwardStep:
        """What answers the model's layers in one forward."""
        return PoolStep(self._pool, rows, self._keeps)


class PoolStep:
    """One forward over a page pool: stores each layer's keys and values, then attends canonically."""

    def __init__(self, pool: PagePool, rows: Rows, keeps: bool = False) -> None:
        self.keeps = keeps
        self._layers, self._source_layers = iter(pool.layers), iter(pool.layers)
        self._rows = rows
        self._scanned = None if pool.states is None else ScannedRows(pool.states, rows.states)

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, picks: Picks | None = None, **how: Any
    ) -> torch.Tensor:
        """See `ForwardStep`."""
        layer = self._written(key, value)
        if picks is not None and picks.biases is None:
            index = self._written(picks.key, picks.key[..., :1])
            picks.biases = biases_of(picks, index, self._rows)
        if picks is not None:
            how["picked"] = picks.biases
        return self._attended(query, layer, **how).to(query.dtype)

    def _attended(self, query: torch.Tensor, layer: LayerCache, **how: Any) -> torch.Tensor:
        """(R, H, D_v) float32 over the rows' paths."""
        return batch_invariant_attention(query, layer, self._rows, **how)

    def _written(self, key: torch.Tensor, value: torch.Tensor) -> LayerCache:
        """The next layer, with the rows' keys and values."""
        layer = next(self._layers)
        layer.write(self._rows.write_index(layer.shape.num_kv_heads), key, value)
        return layer

    def convolve(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """See `ForwardStep`."""
        assert self._scanned is not None
        return self._scanned.convolve(x, weight, bias)

    def scan(self, given: Scan) -> torch.Tensor:
        """See `ForwardStep`."""
        assert self._scanned is not None
        return self._scanned.scan(given)

    def keep(self, layer: LayerCache, keys: torch.Tensor, values: torch.Tensor) -> None:
        """See `ForwardStep`."""
        layer.write(self._rows.write_index(layer.shape.num_kv_heads), keys, values)

    def attend_source(self, query: torch.Tensor, **how: Any) -> torch.Tensor:
        """See `ForwardStep`."""
        assert self._rows.sources is not None
        layer = next(self._source_layers)
        return batch_invariant_attention(query, layer, self._rows.sources, **how).to(query.dtype)


class RecordedForward:
    """Programs recorded from the model, one for each number of rows; all on the CPU.

    Recorded are one row, and two numbers of rows from which those between are worked out. A forward that cannot be
    worked out is recorded for each number when it is first met.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        pool: PagePool,
        last_position: int,
        found: Library,
        keeps: bool = False,
        most: int = _MANY,
    ) -> None:
        self._model, self._pool, self._last_position, self._library = model, pool, last_position, found
        self._keeps, self._most = keeps, most
        self._frame, self._source_frame = Frame(found, pool.num_pages), Frame(found, pool.num_pages)
        self._state_frame = StateFrame(0 if pool.states is None else pool.states.num_slots)
        self._weights: Weights = {}
        self._tokens, self._positions, self._pins = torch.zeros(3, most, dtype=torch.int64)
        self._is_pinned = len(contexts(model)) > 1
        self._frame.set([])
        self._source_frame.set([])
        self._num_embeddings = num_embeddings(input_embeddings(model))
        alone = self._compiled(1)
        self._programs: dict[int, Program | ScaledProgram] = {1: alone}
        self.is_exact_by_construction = alone.num_segments == 1
        self._family = self._worked_out() if self.is_exact_by_construction else None

    def logits(self, work: Sequence[TreeWork], num_rows: int) -> torch.Tensor:
        """See `Forward`."""
        if self._model.config.is_encoder_decoder:
            set_sources(self._source_frame, looking(work))
        program = self._feed(set_trees(self._frame, work), num_rows)
        program.run()
        return program.result

    def drafting(self, row_counts: Sequence[int]) -> Drafting | None:
        """What grows trees natively, at these row counts; None where it would have to know more of rows."""
        if self._program(1).runner is None or self._is_pinned:
            return None
        return Drafting(self._library, self._frame, self._parts, row_counts, self._last_position)

    def _parts(self, num_rows: int) -> tuple[torch.Tensor, torch.Tensor, Runner, torch.Tensor]:
        program = self._program(num_rows)
        assert program.runner is not None, "the same operations at every row count"
        return self._tokens[:num_rows], self._positions[:num_rows], program.runner, program.result

    def prefill(self, sequence: CachedSequence, tokens: Sequence[int]) -> None:
        """See `Forward`. It ends with the last layer's keys and values: nobody asks what comes after them."""
        self._feed_chunk(sequence, tokens).run_prefix()

    def prefill_logits(self, sequence: CachedSequence, tokens: Sequence[int]) -> torch.Tensor:
        """See `Forward`."""
        program = self._feed_chunk(sequence, tokens)
        program.run()
        return program.result[: len(tokens)]

    def _feed_chunk(self, sequence: CachedSequence, tokens: Sequence[int]) -> Program | ScaledProgram:
        if self._model.config.is_encoder_decoder:
            set_sources(self._source_frame, [(source_of(sequence), len(tokens))])
        return self._feed(set_chunk(self._frame, sequence, tokens), _padded(len(tokens)))

    def prepare(self) -> None:
        """See `Forward`. Working out a program takes milliseconds, which a first request would pay at every count."""
        for count in ROW_COUNTS:
            self._program(count)

    def _feed(self, fed: Fed, num_rows: int) -> Program | ScaledProgram:
        """The program for a number of rows, its inputs set."""
        program = self._program(num_rows)
        count = len(fed.tokens)
        if count and not 0 <= fed.tokens.min() <= fed.tokens.max() < self._num_embeddings:
            raise IndexError(f"a token outside the embedding of {self._num_embeddings}")  # as PyTorch would
        if fed.states:  # of recurrent layers, which most models have not
            self._state_frame.set(fed.states)
        self._tokens[:num_rows].zero_()[:count] = torch.from_numpy(fed.tokens)
        self._positions[:num_rows].zero_()[:count] = torch.from_numpy(np.minimum(fed.positions, self._last_position))
        if self._is_pinned:
            self._pins[:num_rows].zero_()[:count] = torch.tensor(fed.pins)
        return program

    def _program(self, num_rows: int) -> Program | ScaledProgram:
        if num_rows not in self._programs:
            is_between = self._family is not None and _FEW <= num_rows <= self._most
            make = self._family.program if self._family is not None and is_between else self._compiled
            self._programs[num_rows] = make(num_rows)
        return self._programs[num_rows]

    def _compiled(self, num_rows: int) -> Program:
        recorded = self._record(num_rows)
        return Program(self._library, recorded.recording, recorded.result, recorded.prefix)

    def _worked_out(self) -> ProgramFamily | None:
        with suppress(NotScalableError):
            return ProgramFamily(self._library, self._record(_FEW), self._record(self._most))
        return None

    @torch.inference_mode(False)
    @torch.no_grad()
    def _record(self, num_rows: int) -> Recorded:
        headers = [self._frame.header, self._source_frame.header]
        memory = [
            *headers,
            *(t for layer in (*self._pool.layers, *self._pool.guests) for t in (layer.keys, layer.values)),
        ]
        memory += [] if self._pool.states is None else self._pool.states.tensors
        with Recording(self._inputs, memory, self._weights) as recording:
            frames = Frames(self._frame, self._source_frame, self._state_frame)
            step = EmittingStep(self._library, self._pool.layers, self._pool.states, frames, recording)
            step.keeps = self._keeps
            result = self._run(step, num_rows).float()
        return Recorded(num_rows, recording, result, step.num_steps)

    @property
    def _inputs(self) -> list[torch.Tensor]:
        """What a run of a program reads anew."""
        return [self._tokens, self._positions, self._pins]

    def _run(self, step: ForwardStep, num_rows: int) -> torch.Tensor:
        """The model's logits over the rows that the inputs hold."""
        tokens, positions, pins = (given[:num_rows] for given in self._inputs[:3])
        return run_rows(self._model, step, tokens, positions, pinned=pins if self._is_pinned else None)


def _padded(num_rows: int) -> int:
    """Rows of the program that a chunk of a prompt is read by: beyond the usual counts, a block of whole pages."""
    return ROW_COUNTS[bisect_left(ROW_COUNTS, num_rows)] if num_rows <= _MANY else -(-num_rows // PAGE_SIZE) * PAGE_SIZE
