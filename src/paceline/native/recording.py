"""Recording a forward: what a model does to its tensors, written down so that it can be run again without Python.

While a recording is open, every operation that PyTorch is asked for runs as usual and is also noted, if its result
depends on the recorded inputs. Native ones are noted and not run: nobody looks at values here. What depends on nothing
but shapes and weights is a constant. Views are not operations: an operand is remembered as a place in a storage
(program.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from paceline.native.complexes import complex_calls
from paceline.native.elementwise import elementwise_calls
from paceline.native.layout import Op
from paceline.native.library import Library
from paceline.native.mapping import Call, Function, map_calls
from paceline.native.moving import moving_calls
from paceline.native.ops import run
from paceline.native.products import PRODUCTS, Weights, left_product_calls, product_calls, small_product_calls

Tensors = Sequence[torch.Tensor]
aten = torch.ops.aten
_EMPTY = (aten.empty.memory_format, aten.empty_like.default, aten.new_empty.default)
# What they make has a shape, and no value, of their argument.
_SHAPED = (
    *_EMPTY,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
)


class NotRecordableError(Exception):
    """The forward looks at values of its inputs in Python, or writes where a recording cannot follow."""


@dataclass(frozen=True, eq=False)
class Step:
    """One operation: `make` builds it over its tensors, wherever they will be when it runs."""

    make: Callable[..., Op | Callable[[], None]]
    writes: tuple[torch.Tensor, ...]
    reads: tuple[torch.Tensor, ...]
    written: tuple[int, ...]  # the storages of `writes`: to ask a tensor takes long
    read: tuple[int, ...]


_open: ContextVar[Recording | None] = ContextVar("paceline_recording", default=None)


def emit(library: Library, make: Callable[..., Op], writes: Tensors, reads: Tensors) -> None:
    """Run a native operation, `make(*writes, *reads)`, or note it if a recording is open."""
    recording = _open.get()
    if recording is None:
        run(library, [make(*writes, *reads)])
    else:
        recording.add(make, writes, reads)


def emit_shared(
    library: Library, make: Callable[..., Op], result: tuple[Sequence[int], torch.dtype], reads: Tensors
) -> torch.Tensor:
    """What `make(out, *reads)` computes, a tensor of a shape and dtype; the same one while a recording is open.

    `make` must compute the same of the same tensors, whichever object it belongs to.
    """
    recording = _open.get()
    key = (result, tuple(_identity(tensor) for tensor in reads)) if recording is not None else None
    if recording is not None and key in recording.shared:
        return recording.shared[key]
    out = torch.empty(*result[0], dtype=result[1])
    emit(library, make, [out], reads)
    if recording is not None:
        recording.shared[key] = out
    return out


def _identity(tensor: torch.Tensor) -> Hashable:
    """Equal for tensors of the same values: the version counts what was written into them."""
    return storage_of(tensor), tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype, tensor._version


def emit_call(function: Callable[..., None], writes: Tensors, reads: Tensors) -> None:
    """The same for work in Python, `function(*writes, *reads)`."""
    recording = _open.get()
    if recording is None:
        function(*writes, *reads)
    else:
        recording.add(lambda *tensors: functools.partial(function, *tensors), writes, reads)


def is_recording() -> bool:
    """True while a recording is open: elementwise operations are going to be native then, and need no help."""
    return _open.get() is not None


class Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The steps that lead from `inputs` to whatever is computed while it is open.

    `memory` is what native steps may write to and read back that outlives a run, such as a cache of keys. `weights`
    keeps what is packed on the way, of matrices that the model multiplies by without a linear module.
    """

    def __init__(self, inputs: Tensors, memory: Tensors = (), weights: Weights | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self.shared: dict[Hashable, torch.Tensor] = {}  # results that several ask for
        self._weights = {} if weights is None else weights
        self._dynamic = {storage_of(tensor) for tensor in inputs}
        self._made: set[int] = set()  # constants that came about on the way: they may be written to
        self._fixed = {storage_of(tensor) for tensor in (*inputs, *memory)}
        self._kept: list[torch.Tensor] = [*inputs, *memory]  # storages are known by address: none may be freed

    def __enter__(self) -> Recording:
        self._token = _open.set(self)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        _open.reset(self._token)

    def add(self, make: Callable[..., Op | Callable[[], None]], writes: Tensors, reads: Tensors) -> None:
        """Note a step; what it writes is dynamic from now on."""
        written, read = tuple(map(storage_of, writes)), tuple(map(storage_of, reads))
        self.steps.append(Step(make, tuple(writes), tuple(reads), written, read))
        self._dynamic.update(written)
        self._kept += [*writes, *reads]

    def is_dynamic(self, tensor: torch.Tensor) -> bool:
        """True if the tensor's values depend on the inputs."""
        return storage_of(tensor) in self._dynamic

    def is_moved(self, storage: int) -> bool:
        """True if a program keeps a storage in memory of its own."""
        return storage in self._dynamic and storage not in self._fixed

    def is_constant(self, tensor: torch.Tensor) -> bool:
        """True if a tensor's values depend on nothing but shapes and weights."""
        storage = storage_of(tensor)
        return storage not in self._dynamic and storage not in self._fixed

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func in _EMPTY:
            out.zero_()  # what a native operation would fill: PyTorch's own may take it for an index
        reads = _tensors((*args, *kwargs.values()))
        if func not in _SHAPED and any(self.is_dynamic(tensor) for tensor in reads):
            self._note(func, args, kwargs, out, reads)
        else:
            self._keep_constants(_tensors(out), reads)
        return out

    def _keep_constants(self, results: list[torch.Tensor], reads: list[torch.Tensor]) -> None:
        fresh = {storage_of(tensor) for tensor in results} - {storage_of(tensor) for tensor in reads}
        self._made |= fresh
        self._kept += [tensor for tensor in results if storage_of(tensor) in fresh]

    def _begin_writing(self, func: Any, tensor: torch.Tensor) -> None:
        """Have a constant that came about on the way be filled anew at each run, since it is written to."""
        storage = storage_of(tensor)
        if storage not in self._made or any(storage in step.read for step in self.steps):
            raise NotRecordableError(f"{func} writes into a constant")
        whole = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
        is_even = bool((whole == whole[:1]).all())  # then it may have any size
        values = whole[:1].clone().expand(whole.shape) if is_even else whole.clone()
        calls = map_calls(Function.COPY, whole, values)
        if calls is None:
            raise NotRecordableError(f"{func} writes into a constant of {tensor.dtype}")
        for call in calls:
            self.add(*call)

    def _note(self, func: Any, args: Any, kwargs: Any, out: Any, reads: list[torch.Tensor]) -> None:
        results = _tensors(out)
        sources = {storage_of(tensor) for tensor in reads}
        if func._schema.is_mutable and not self.is_dynamic(args[0]):
            self._begin_writing(func, args[0])
        if not results:
            raise NotRecordableError(f"{func} gives Python a value")
        if not func._schema.is_mutable and all(storage_of(result) in sources for result in results):
            return  # a view
        calls = self._product(args, out) if func in PRODUCTS and not kwargs else None
        if func not in PRODUCTS:
            known = (elementwise_calls, moving_calls, complex_calls)
            calls = next((made for each in known if (made := each(func, args, kwargs, out))), None)
        for call in calls or [_by_torch(func, args, kwargs, out, reads)]:
            self.add(*call)

    def _product(self, args: Any, out: Any) -> list[Call] | None:
        """A product with a constant matrix on either side, and with constant biases."""
        *biases, left, right = (self.is_dynamic(tensor) for tensor in args)
        if any(biases):
            return None
        if left and right:
            return small_product_calls(args, out) if len(args) == 2 else None
        return product_calls(self._weights, args, out) if left else left_product_calls(self._weights, args, out)


def _by_torch(func: Any, args: Any, kwargs: Any, out: Any, reads: list[torch.Tensor]) -> tuple[Any, Tensors, Tensors]:
    """A step that asks PyTorch again: for what the kernels do not know."""
    is_mutable = func._schema.is_mutable
    results = reads[:1] if is_mutable else _tensors(out)

    def make(*tensors: torch.Tensor) -> Callable[[], None]:
        moved = iter(tensors[len(results) :])
        again = tree_map(lambda leaf: next(moved) if isinstance(leaf, torch.Tensor) else leaf, (args, kwargs))

        def call() -> None:
            fresh = func(*again[0], **again[1])
            if not is_mutable:
                for place, value in zip(tensors, _tensors(fresh), strict=False):
                    place.copy_(value)

        return call

    return make, results, reads


def storage_of(tensor: torch.Tensor) -> int:
    """What tells storages apart."""
    return int(tensor.untyped_storage()._cdata)


def _tensors(given: Any) -> list[torch.Tensor]:
    """The tensors of an argument or a result, which are no more than lists of lists."""
    if isinstance(given, torch.Tensor):
        return [given]
    return [tensor for part in given for tensor in _tensors(part)] if isinstance(given, (tuple, list)) else []
