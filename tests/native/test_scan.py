"""Recurrent kernels against float64, token by token: trees, accepted rows, beginnings; the same bits on every set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from native.sets import all_sets
from paceline.model.states import SequenceState
from paceline.native.library import Library
from paceline.native.ops import run
from paceline.native.states import DELTA, PLAIN, RATE, StateFrame, StateRows, convolve_op, scan_op, state_size

SETS = all_sets()
pytestmark = pytest.mark.skipif(not SETS, reason="no native kernels")
every_seed = pytest.mark.parametrize("seed", range(4))
SLOTS = 3
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Forward:
    """What is fed at once: each sequence's rows, by parents; and which of them are accepted afterwards."""

    rows: list[StateRows]
    accepted: list[list[int]]

    @property
    def num_rows(self) -> int:
        return sum(item.num_rows for item in self.rows)


def drawn_forwards(rng: np.random.Generator) -> list[Forward]:
    """Prompts' chunks, then trees of which a path is accepted, then trees grown in two forwards."""
    states = [SequenceState(slot) for slot in rng.permutation(SLOTS).tolist()]
    found = []
    for kind in ("chunk", "tree", "tree", "grown", "tree"):
        rows: list[StateRows] = []
        later: list[StateRows] = []
        accepted = []
        for state in states:
            count = int(rng.integers(1, 12))
            parents = (
                [int(rng.integers(-1, i)) for i in range(count)] if kind != "chunk" else list(range(-1, count - 1))
            )
            first = sum(item.num_rows for item in rows)
            rows.append(state.feed(first, parents, 0, is_kept=kind == "chunk"))
            path: list[int] = []
            if kind == "grown":
                more = parents + [int(rng.integers(-1, count + i)) for i in range(int(rng.integers(1, 5)))]
                later.append(state.feed(sum(item.num_rows for item in later), more, count))
                parents = more
            node = int(rng.integers(0, len(parents)))
            while node >= 0 and kind != "chunk":
                path.insert(0, node)
                node = parents[node]
            state.accept(path)
            accepted.append(path)
        found += [Forward(rows, accepted if not later else [[]] * SLOTS)]
        found += [Forward(later, accepted)] if later else []
    return found


class Reference:
    """Each sequence's committed inputs, and those of its tree: everything is computed anew from the first on."""

    def __init__(self) -> None:
        self.committed: dict[int, list[int]] = {slot: [] for slot in range(SLOTS)}  # numbers of inputs
        self.tree: dict[int, list[int]] = {slot: [] for slot in range(SLOTS)}

    def paths(self, forward: Forward, start: int) -> list[list[int]]:
        """The inputs on each row's path, itself last; inputs are numbered through all forwards from `start` on."""
        found = []
        for item, path in zip(forward.rows, forward.accepted, strict=True):
            own = self.tree[item.slot][: item.first] + [start + item.first_row + i for i in range(item.num_rows)]
            self.tree[item.slot] = own
            for row in range(item.first, len(item.parents)):
                nodes = [row]
                while item.parents[nodes[0]] >= 0:
                    nodes.insert(0, item.parents[nodes[0]])
                found.append(self.committed[item.slot] + [own[node] for node in nodes])
            kept = range(len(own)) if item.is_kept else path
            self.committed[item.slot] = self.committed[item.slot] + [own[node] for node in kept]
        return found


def bits_of(library: Library, seed: int, make) -> list[bytes]:
    """The results of a case on one instruction set, forward by forward, checked against float64."""
    rng = np.random.default_rng(seed)
    forwards = drawn_forwards(rng)
    case = make(rng, sum(forward.num_rows for forward in forwards))
    frame, reference, start, found = StateFrame(SLOTS), Reference(), 0, []
    for forward in forwards:
        frame.set(forward.rows)
        rows = slice(start, start + forward.num_rows)
        out = case.run(library, frame, rows)
        for row, path in enumerate(reference.paths(forward, start)):
            np.testing.assert_allclose(out[row], case.expected(path), rtol=2e-5, atol=2e-5)
        found.append(out.tobytes())
        start += forward.num_rows
    return found


class Scanned:
    """A scan of odd sizes."""

    def __init__(self, rng: np.random.Generator, count: int, function: int) -> None:
        self.function = function
        self.group = 1 if function == RATE else int(rng.integers(1, 4))
        key_heads = 1 if function == RATE else int(rng.integers(1, 4))
        heads, keys, values = key_heads * self.group, int(rng.integers(1, 23)), int(rng.integers(1, 300))
        decays = values if function == RATE else int(rng.choice([1, keys]))
        self.query, self.key = rng.standard_normal((2, count, key_heads, keys)).astype(np.float32) * keys**-0.5
        self.value = rng.standard_normal((count, heads, values)).astype(np.float32)
        sign = 1 if function == RATE else -1  # rates are below zero themselves
        self.decay = sign * rng.random((count, heads, decays)).astype(np.float32)
        self.factor = {
            PLAIN: None,
            DELTA: rng.random((count, heads)).astype(np.float32),
            RATE: -rng.random((keys, values)).astype(np.float32),
        }[function]
        floats = key_heads * keys + heads * (values + decays + (function == DELTA))
        self.states = torch.full((SLOTS, *state_size(heads, keys, values)), torch.nan)
        self.traces = torch.full((SLOTS, 2, 64, floats), torch.nan)

    def run(self, library: Library, frame: StateFrame, rows: slice) -> NDArray[np.float32]:
        parts = [torch.from_numpy(part[rows]) for part in (self.query, self.key, self.value, self.decay)]
        factor = self.factor if self.function != DELTA else self.factor[rows]
        out = torch.empty(parts[2].shape)
        last = None if factor is None else torch.from_numpy(factor)
        run(library, [scan_op(out, *parts, self.states, self.traces, last, self.function, frame)])
        return out.numpy()

    def expected(self, path: list[int]) -> Floats:
        keys, values = self.key.shape[2], self.value.shape[2]
        out = np.zeros(self.value.shape[1:])
        for head in range(len(out)):
            state = np.zeros((keys, values))
            for row in path:
                decay = self.decay[row, head].astype(np.float64)
                state *= np.exp(self.factor * decay if self.function == RATE else np.broadcast_to(decay, keys)[:, None])
                key, added = self.key[row, head // self.group].astype(np.float64), self.value[row, head]
                if self.function == DELTA:
                    added = self.factor[row, head] * (added - key @ state)
                state += np.outer(key, added)
            out[head] = self.query[path[-1], head // self.group] @ state
        return out


class Convolved:
    """A convolution of odd sizes."""

    def __init__(self, rng: np.random.Generator, count: int) -> None:
        channels, self.taps = int(rng.integers(1, 200)), int(rng.integers(1, 6))
        self.x = torch.from_numpy(rng.standard_normal((channels, count)).astype(np.float32)).t()
        self.x = self.x if rng.random() < 0.5 else self.x.bfloat16()
        self.weight = torch.from_numpy(rng.standard_normal((self.taps, channels)).astype(np.float32))
        self.bias = self.weight[0].clone() if rng.random() < 0.5 else None
        self.states = torch.full((SLOTS, self.taps - 1, channels), torch.nan)
        self.traces = torch.full((SLOTS, 2, 64, channels), torch.nan)

    def run(self, library: Library, frame: StateFrame, rows: slice) -> NDArray[np.float32]:
        x = self.x[rows]
        out = torch.empty(x.shape)
        run(library, [convolve_op(out, x, self.weight, self.states, self.traces, self.bias, frame)])
        return out.numpy()

    def expected(self, path: list[int]) -> Floats:
        last = self.x[path[-self.taps :]].double().numpy()
        total = (self.weight[-len(last) :].double().numpy() * last).sum(0)
        return total if self.bias is None else total + self.bias.double().numpy()


@every_seed
@pytest.mark.parametrize("function", [PLAIN, DELTA, RATE], ids=["plain", "delta", "rate"])
def test_scans_are_right_and_have_the_same_bits_everywhere(seed: int, function: int) -> None:
    found = [bits_of(library, seed, lambda rng, count: Scanned(rng, count, function)) for library in SETS]
    fused = [bits for library, bits in zip(SETS, found, strict=True) if library.name != "portable"]
    assert all(bits == fused[0] for bits in fused)


@every_seed
def test_convolutions_are_right_and_have_the_same_bits_everywhere(seed: int) -> None:
    found = [bits_of(library, seed, Convolved) for library in SETS]
    assert all(bits == found[0] for bits in found)


@pytest.mark.parametrize(
    "rows",
    [
        StateRows(0, SLOTS, 0, 0, [-1], [], True, False),
        StateRows(0, 0, 0, 0, [0], [], True, False),
        StateRows(0, 0, 0, 0, [-1, 2], [], True, False),
        StateRows(0, 0, 0, 2, [-1], [], True, False),
        StateRows(0, 0, 0, 0, list(range(-1, 64)), [], True, False),
        StateRows(0, 0, 0, 0, [-1], [64], False, False),
    ],
    ids=["a slot", "itself", "a later parent", "rows before none", "too many", "accepted"],
)
def test_what_would_read_elsewhere_is_refused(rows: StateRows) -> None:
    with pytest.raises(ValueError, match=r"rows|parent|accepted"):
        StateFrame(SLOTS).set([rows])
