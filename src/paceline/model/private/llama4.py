"""Llama 4: chunks that a row sees from their beginning on, queries tempered by position, experts of scaled inputs."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn import functional
from transformers.models.llama4.modeling_llama4 import apply_rotary_emb

from paceline.model.grouped import PackedLinears, added_up, choice_of, packed
from paceline.model.interface import attend, positions
from paceline.model.private.adapters import adapter, merged, packer
from paceline.native.library import Library
from paceline.native.recording import emit_call


@adapter("llama4.Llama4TextAttention")
def _attention(
    module: Any, original: Any, hidden_states: torch.Tensor, position_embeddings: torch.Tensor, *rest: Any, **more: Any
) -> tuple[torch.Tensor, None]:
    def projected(linear: Any) -> torch.Tensor:
        return linear(hidden_states).view(*hidden_states.shape[:-1], -1, module.head_dim)  # type: ignore[no-any-return]

    query, key, value = (projected(linear) for linear in (module.q_proj, module.k_proj, module.v_proj))
    if module.use_rope:
        query, key = apply_rotary_emb(query, key, position_embeddings)
    if hasattr(module, "qk_norm"):
        query, key = module.qk_norm(query), module.qk_norm(key)
    if module.attn_temperature_tuning and not module.use_rope:
        query = (query * _temperature(module)[..., None, None]).to(query.dtype)
    is_chunked = module.config.layer_types[module.layer_idx] == "chunked_attention"
    chunk = int(module.config.attention_chunk_size or 0) if is_chunked else 0
    out = attend(*(part.transpose(1, 2) for part in (query, key, value)), scaling=module.scaling, chunk=chunk)
    return module.o_proj(merged(out)), None


def _temperature(module: Any) -> torch.Tensor:
    """(1, R) what queries are multiplied by."""
    steps = torch.floor((positions().float() + 1.0) / module.floor_scale)
    scale: torch.Tensor = torch.log1p(steps) * module.attn_scale + 1.0
    return scale


@packer("llama4.Llama4TextMoe")
def _pack(module: Any, library: Library) -> None:
    experts = module.experts
    for name in ("gate_up_proj", "down_proj"):
        weights = experts._parameters.pop(name).detach()  # (E, in, out)
        setattr(experts, f"packed_{name}", PackedLinears(library, packed(library, [w.t() for w in weights])))


@adapter("llama4.Llama4TextMoe")
def _experts(module: Any, original: Any, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Every expert would see every row, times 0 for those that were not chosen."""
    if not hasattr(module.experts, "packed_down_proj"):
        return original(hidden_states)  # type: ignore[no-any-return]
    rows = hidden_states.reshape(-1, module.hidden_dim)
    logits = functional.linear(rows, module.router.weight)
    top, index = torch.topk(logits, module.top_k, dim=1)
    weights = torch.sigmoid(top.float()).to(top.dtype)
    routed = torch.empty(rows.shape, dtype=rows.dtype)
    emit_call(partial(_mix, module.experts), [routed], [rows, index, weights])
    return module.shared_expert(rows) + routed, logits


def _mix(experts: Any, out: torch.Tensor, x: torch.Tensor, index: torch.Tensor, weights: torch.Tensor) -> None:
    choice = choice_of(index, experts.num_experts)
    scaled = x.index_select(0, choice.order // index.shape[1]) * weights.flatten()[choice.order].unsqueeze(-1)
    gate, up = experts.packed_gate_up_proj(choice.groups, scaled).chunk(2, dim=-1)
    parts = experts.packed_down_proj(choice.groups, up * experts.act_fn(gate))
    out.copy_(added_up(choice, parts, torch.ones_like(weights)))
