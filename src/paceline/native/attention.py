"""Operations of batch-invariant attention: storing the rows' keys and values, and attending over each row's path.

The pools are (pages, H_kv, 64, D) and (pages, H_kv, 64, D_v) in float32 or bfloat16; which rows there are is in a
`Frame` and may change between runs. What is added up for a row, and in which order: csrc/attention.h.
"""

from __future__ import annotations

import torch

from paceline.native.frame import Frame
from paceline.native.layout import PAGE, Kind, Op
from paceline.native.ops import FLOATS, make, require


def write_op(
    key_pool: torch.Tensor, value_pool: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, frame: Frame
) -> Op:
    """Store `keys` (R, H_kv, D) and `values` (R, H_kv, D_v), any strides, in the slots of the frame's rows.

    R is the most rows that the frame may have; those beyond the frame's are not read.
    """
    _check_pools(key_pool, value_pool, frame)
    num_rows, heads = keys.shape[0], key_pool.shape[1]
    for rows, pool in ((keys, key_pool), (values, value_pool)):
        require(rows.shape == (num_rows, heads, pool.shape[3]), f"rows {tuple(rows.shape)} for {tuple(pool.shape)}")
        require(rows.dtype in FLOATS, f"rows are {rows.dtype}")
    shape = (num_rows, heads, key_pool.shape[3], value_pool.shape[3])
    return make(Kind.WRITE, shape, (key_pool, value_pool, keys, values, frame.header))


def attend_ops(
    out: torch.Tensor,
    query: torch.Tensor,
    key_pool: torch.Tensor,
    value_pool: torch.Tensor,
    frame: Frame,
    *,
    scaling: float,
    window: int = 0,
    softcap: float = 0.0,
    sinks: torch.Tensor | None = None,
    slopes: torch.Tensor | None = None,
    distances: torch.Tensor | None = None,
    chunk: int = 0,
) -> list[Op]:
    """`out` (R, H, D_v) of `query` (R, H, D), any strides, over the keys on each row's path, itself included.

    `window` is the number of positions seen, itself included (0: all); `softcap` bounds scores (0: none). `sinks` (H,)
    are scores of keys without values. R is the most rows that the frame may have; those beyond stay as they are. To a
    score are added `slopes` (H,) times the key's position less the row's, or `distances` (H, n) at the row's less the
    key's; the last one holds beyond. With a `chunk`, a row sees its chunk of so many positions from the beginning on.
    """
    _check_pools(key_pool, value_pool, frame)
    heads, dim, value_dim = key_pool.shape[1], key_pool.shape[3], value_pool.shape[3]
    require(query.ndim == 3 and query.dtype in FLOATS, f"query is {tuple(query.shape)}, {query.dtype}")
    num_rows, num_heads, _ = query.shape
    require(query.shape[2] == dim and num_heads > 0 and num_heads % heads == 0, f"query is {tuple(query.shape)}")
    require(out.shape == (num_rows, num_heads, value_dim), f"out is {tuple(out.shape)}")
    require(out.dtype in FLOATS and (out.stride(2) == 1 or value_dim == 1), "out must be floats, contiguous by row")
    if sinks is not None:
        require(sinks.shape == (num_heads,) and sinks.dtype in FLOATS, f"sinks are {tuple(sinks.shape)}, {sinks.dtype}")
    require(window >= 0 and chunk >= 0 and softcap >= 0, f"window {window}, chunk {chunk}, softcap {softcap}")
    require(not (window and chunk), f"window {window} and chunk {chunk}")
    relative = _relative(num_heads, slopes, distances)
    frame.require(num_heads, value_dim)
    ops = []
    for kind in (Kind.ATTEND, Kind.COMBINE):
        op = make(
            kind,
            (num_rows, num_heads, dim, heads, value_dim),
            (out, query, key_pool, value_pool, frame.header, sinks, relative),
        )
        op.size[0] = -chunk if chunk else window
        op.size[1] = 0 if distances is None else distances.shape[1]
        op.number[0], op.number[1] = scaling, softcap
        ops.append(op)
    return ops


def _relative(num_heads: int, slopes: torch.Tensor | None, distances: torch.Tensor | None) -> torch.Tensor | None:
    """What is added to scores by distance, checked."""
    require(slopes is None or distances is None, "slopes and distances")
    if slopes is not None:
        require(slopes.shape == (num_heads,), f"slopes are {tuple(slopes.shape)}")
    if distances is not None:
        is_right = distances.ndim == 2 and len(distances) == num_heads and distances.shape[1] > 0
        require(is_right and distances.stride(1) == 1, f"distances are {tuple(distances.shape)}")
    found = distances if slopes is None else slopes
    require(found is None or found.dtype == torch.float32, "slopes and distances must be float32")
    return found


def _check_pools(keys: torch.Tensor, values: torch.Tensor, frame: Frame) -> None:
    require(keys.ndim == 4 and keys.shape[1] > 0 and keys.shape[2] == PAGE, f"a pool of {tuple(keys.shape)}")
    require(
        values.ndim == 4 and values.shape[:3] == keys.shape[:3], f"pools {tuple(keys.shape)}, {tuple(values.shape)}"
    )
    require(len(keys) >= frame.num_pages, f"a pool of {len(keys)} pages for a frame of {frame.num_pages}")
    for pool in (keys, values):
        require(pool.dtype in FLOATS and pool.shape[3] > 0, f"a pool of {pool.dtype}, {tuple(pool.shape)}")
        require(pool.stride(3) == 1 or pool.shape[3] == 1, "a pool's rows must be contiguous")
