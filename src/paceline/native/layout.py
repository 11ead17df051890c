"""What Python and the kernels share: structs, numbers and constants that mirror csrc/paceline.h.

`LAYOUT` is compared with the compiled kernels' own when they are loaded: memory is never read by another's plan.
"""

from __future__ import annotations

import ctypes
import enum

MAX_DIMS = 6
MAX_VIEWS = 8
PAGE = 64  # positions of a page; and drafts that a sequence may have at most
PANEL = 32  # columns of a panel of packed weights
CHUNK = 512  # positions that attention adds up without a break
MAX_LANES = 16  # floats of the widest vector
HEADER_INTS, SEQUENCE_INTS, ROW_INTS = 7, 6, 3  # of a frame's structs


class Kind(enum.IntEnum):
    """Kernels."""

    PACK = 0
    LINEAR = 1
    EMBED = 2
    GATHER = 3
    MAP = 4
    MEAN = 5
    LAYER_NORM = 6
    WRITE = 7
    ATTEND = 8
    COMBINE = 9
    QUANTIZE = 10
    PACK_QUANTIZED = 11
    LINEAR_QUANTIZED = 12
    EMBED_QUANTIZED = 13
    ROUND = 14
    CONVOLVE = 15
    SCAN = 16


class View(ctypes.Structure):
    """A strided view of a tensor; strides in elements."""

    _fields_ = (("data", ctypes.c_void_p), ("dtype", ctypes.c_int64), ("strides", ctypes.c_int64 * MAX_DIMS))


class Op(ctypes.Structure):
    """One operation; `views` begins with the result."""

    _fields_ = (
        ("kind", ctypes.c_int64),
        ("function", ctypes.c_int64),
        ("is_serial", ctypes.c_int64),
        ("barrier", ctypes.c_int64),
        ("ndim", ctypes.c_int64),
        ("shape", ctypes.c_int64 * MAX_DIMS),
        ("views", View * MAX_VIEWS),
        ("size", ctypes.c_int64 * 4),
        ("number", ctypes.c_double * 4),
    )


class Recorded(ctypes.Structure):
    """The recorded forward of so many rows, see csrc/draft.h."""

    _fields_ = (
        ("num_rows", ctypes.c_int64),
        ("ops", ctypes.c_void_p),
        ("num_ops", ctypes.c_int64),
        ("tokens", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
        ("dtype", ctypes.c_int64),
        ("stride", ctypes.c_int64),
    )


_Nodes = ctypes.c_int64 * PAGE
_Chances = ctypes.c_double * PAGE


class Draft(ctypes.Structure):
    """A request for which a draft model proposes, see csrc/draft.h."""

    _fields_ = (
        ("pages", ctypes.c_void_p),
        ("length", ctypes.c_int64),
        ("position", ctypes.c_int64),
        ("mask", ctypes.c_void_p),
        ("max_nodes", ctypes.c_int64),
        ("max_depth", ctypes.c_int64),
        ("min_gain", ctypes.c_double),
        ("temperature", ctypes.c_double),
        ("key", ctypes.c_uint64 * 2),
        ("num_fed", ctypes.c_int64),
        ("fed_tokens", _Nodes),
        ("fed_parents", _Nodes),
        ("num_nodes", ctypes.c_int64),
        ("tokens", _Nodes),
        ("parents", _Nodes),
        ("depths", _Nodes),
        ("scores", _Chances),
        ("num_rows", ctypes.c_int64),
        ("rows", _Nodes),
        ("level_start", ctypes.c_int64),
        ("places", _Nodes),
        ("reached", _Chances),
        ("before", ctypes.c_double),
        ("gain", ctypes.c_double),
    )


class DraftModel(ctypes.Structure):
    """What is the same for all of a draft model's proposals, see csrc/draft.h."""

    _fields_ = (
        ("recorded", ctypes.c_void_p),
        ("num_recorded", ctypes.c_int64),
        ("header", ctypes.c_void_p),
        ("vocab_size", ctypes.c_int64),
        ("last_position", ctypes.c_int64),
        ("max_rows", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("branch", ctypes.c_int64),
    )


class Recycled(ctypes.Structure):
    """The table of the drafter `recycle`, see csrc/recycle.c."""

    _fields_ = (
        ("tokens", ctypes.c_void_p),
        ("chances", ctypes.c_void_p),
        ("followed", ctypes.c_void_p),
        ("pairs", ctypes.c_void_p),
        ("vocab_size", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("num_slots", ctypes.c_int64),
        ("thought", ctypes.c_double * 2),
        ("followed_worth", ctypes.c_double * 2),
        ("bounds", ctypes.c_double * 6),
    )


class Grown(ctypes.Structure):
    """A tree that was grown natively."""

    _fields_ = (
        ("num_nodes", ctypes.c_int64),
        ("tokens", _Nodes),
        ("parents", _Nodes),
        ("buckets", _Nodes),
        ("scores", _Chances),
    )


class BlockModel(ctypes.Structure):
    """A block head's forward and transition, see csrc/block.h."""

    _fields_ = (
        ("rank", ctypes.c_int64),
        ("state_size", ctypes.c_int64),
        ("num_features", ctypes.c_int64),
        ("w1", ctypes.c_void_p),
        ("w2", ctypes.c_void_p),
        ("joint", ctypes.c_void_p),
        ("columns", ctypes.c_void_p),
        ("states", ctypes.c_void_p),
        ("scored", ctypes.c_void_p),
        ("ops", ctypes.c_void_p),
        ("num_ops", ctypes.c_int64),
        ("tokens", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("said", ctypes.c_void_p),
        ("header", ctypes.c_void_p),
        ("block_size", ctypes.c_int64),
        ("first_slot", ctypes.c_int64),
        ("is_causal", ctypes.c_int64),
        ("num_logits", ctypes.c_int64),
        ("vocab_size", ctypes.c_int64),
        ("ids", ctypes.c_void_p),
        ("least", ctypes.c_double),
    )


_FRAME_BYTES = [8 * count for count in (HEADER_INTS, SEQUENCE_INTS, ROW_INTS)]
_DRAFT_BYTES = [ctypes.sizeof(struct) for struct in (Recorded, Draft, DraftModel, Recycled, Grown, BlockModel)]
LAYOUT = (
    ctypes.sizeof(View),
    ctypes.sizeof(Op),
    *_FRAME_BYTES,
    *_DRAFT_BYTES,
    len(Kind),
    PAGE,
    PANEL,
    CHUNK,
    MAX_LANES,
)


def layout_of(handle: ctypes.CDLL) -> tuple[int, ...]:
    """The same figures as the compiled kernels have them; () from kernels of before there were any."""
    try:
        return tuple((ctypes.c_int64 * len(LAYOUT)).in_dll(handle, "paceline_layout"))
    except ValueError:
        return ()
