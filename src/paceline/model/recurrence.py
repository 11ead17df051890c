"""What recurrent layers of transformers' models compute, answered from outside as attention is.

Their short convolutions and scans are plain functions of the modules that define the models, looked up when they are
called. Here each is replaced, once for the process, by one that asks whoever runs the current forward; outside of our
forwards it calls the original. No model code is forked. The libraries' chunked formulas sum in an order that depends on
a call's length; ours is the recurrence itself, token by token, in prefill too, so that a row's bits depend on its path.

Gated delta rule: arXiv 2412.06464. Kimi delta attention: 2510.26692. Mamba: 2312.00752. Mamba-2: 2405.21060.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.activations import ACT2FN

from paceline.errors import ModelError
from paceline.model.interface import current_step, running_step
from paceline.model.numerics import in_whole_vectors
from paceline.model.scanning import Scan

_MARK = "_paceline_original"


def install(model: nn.Module) -> None:
    """Have the modules that define a model's layers ask the current forward."""
    for name in {type(module).__module__ for module in model.modules()}:
        _install(sys.modules[name])


def _install(home: ModuleType) -> None:
    for name, port in _PORTS.items():
        original = vars(home).get(name)
        if original is not None and not hasattr(original, _MARK):
            setattr(home, name, _ported(original, port))


def _ported(original: Callable[..., Any], port: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def ported(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs) if current_step() is None else port(*args, **kwargs)

    setattr(ported, _MARK, original)
    return ported


def _convolve(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str | None = None,
    **_: Any,
) -> torch.Tensor:
    """(1, C, R) and (C, K) to (1, C, R)."""
    out = convolve_rows(hidden_states[0].t(), weight, bias)
    out = out if activation is None else in_whole_vectors(ACT2FN[activation], out)
    return out.t().unsqueeze(0)


def convolve_rows(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """(R, C) of `x` (R, C) and `weight` (C, K), over each row's path: for code of a model's own."""
    return running_step().convolve(x, weight, bias)


def scan_rows(rows: Scan) -> torch.Tensor:
    """(R, H, J) float32 of a linear recurrence over each row's path: for code of a model's own."""
    return running_step().scan(rows)


def _delta_rule(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    g: torch.Tensor,
    beta: torch.Tensor,
    *,
    initial_state: torch.Tensor | None = None,
    use_qk_l2norm_in_kernel: bool = False,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """(1, R, Hk, I), (1, R, H, J); `g` (1, R, H), or (1, R, H, I) for Kimi delta attention; `beta` (1, R, H)."""
    _refuse_state(initial_state)
    heads = [x[0].float() for x in (query, key)]
    if use_qk_l2norm_in_kernel:
        heads = [x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6) for x in heads]
    decay = g[0].float()
    rows = Scan(
        query=heads[0] * query.shape[-1] ** -0.5,
        key=heads[1],
        value=value[0].float(),
        decay=decay if decay.ndim == 3 else decay.unsqueeze(-1),
        beta=beta[0].float(),
    )
    return scan_rows(rows).to(query.dtype).unsqueeze(0), None


def _mamba2(
    hidden_states: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,  # the library's names
    B: torch.Tensor,
    C: torch.Tensor,
    chunk_size: int = 0,
    D: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    initial_states: torch.Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    z: torch.Tensor | None = None,
    **_: Any,
) -> torch.Tensor:
    """(1, R, H, J) with `dt` (1, R, H), `A` (H), `B` and `C` (1, R, groups, I) to (1, R, H, J) float32."""
    _refuse_state(initial_states)
    if z is not None:
        raise ModelError("this model gates inside its scan (z), which Paceline's scan does not know")
    x, step = hidden_states[0].float(), dt[0]
    step = step if dt_bias is None else step + dt_bias.to(dt.dtype)
    step = in_whole_vectors(functional.softplus, step) if dt_softplus else step
    if tuple(dt_limit) != (0.0, float("inf")):
        step = torch.clamp(step, min=dt_limit[0], max=dt_limit[1])
    step = step.float()
    decay = (A.float() * step).unsqueeze(-1)
    rows = Scan(query=C[0].float(), key=B[0].float(), value=x * step.unsqueeze(-1), decay=decay)
    out = scan_rows(rows)
    out = out if D is None else out + D.unsqueeze(-1).float() * x
    return out.unsqueeze(0)


def _mamba(
    hidden_states: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
    **_: Any,
) -> torch.Tensor:
    """(1, J, R) with `dt` (1, J, R), `A` (J, I), `B` and `C` (1, I, R) to (1, J, R)."""
    x, step = hidden_states[0].t(), dt[0].t()
    step = step if delta_bias is None else step + delta_bias.to(dt.dtype)
    step = (in_whole_vectors(functional.softplus, step) if delta_softplus else step).float()
    rows = Scan(
        query=C[0].t().unsqueeze(1).float(),
        key=B[0].t().unsqueeze(1).float(),
        value=(step * x.float()).unsqueeze(1),
        decay=step.unsqueeze(1),
        rate=A.t().float(),
    )
    out = scan_rows(rows)[:, 0]
    out = out if D is None else out + x.float() * D.float()
    out = out if z is None else out * in_whole_vectors(functional.silu, z[0].t().float())
    return out.to(hidden_states.dtype).t().unsqueeze(0)


def _refuse_state(state: torch.Tensor | None) -> None:
    if state is not None:
        raise ModelError("this model begins its scan from a state of its own, which Paceline's scan does not know")


_PORTS: dict[str, Callable[..., Any]] = {
    "causal_conv1d_fn": _convolve,
    "torch_chunk_gated_delta_rule": _delta_rule,
    "chunk_kimi_delta_attention": _delta_rule,
    "mamba2_chunk_scan": _mamba2,
    "mamba_selective_scan": _mamba,
}
