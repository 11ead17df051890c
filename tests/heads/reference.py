"""Published heads computed from their papers and layouts in plain PyTorch: nothing of it is the product's."""

from __future__ import annotations

import torch

Tensors = dict[str, torch.Tensor]
HEADS, KV_HEADS, HEAD_SIZE, THETA, EPS = 2, 1, 8, 10_000.0, 1e-6


def rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * weight


def rotated(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """x (T, heads, D), by halves."""
    rates = THETA ** (-torch.arange(0, x.shape[-1], 2) / x.shape[-1])
    angles = (positions[:, None] * rates)[:, None]
    low, high = x.chunk(2, -1)
    return torch.cat([low * angles.cos() - high * angles.sin(), high * angles.cos() + low * angles.sin()], -1)


def split(x: torch.Tensor) -> torch.Tensor:
    return x.view(len(x), -1, HEAD_SIZE)


def attended(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sees: torch.Tensor) -> torch.Tensor:
    """(T, heads * D) of queries (T, heads, D) over keys (K, kv heads, D), as far as seen (T, K)."""
    repeat = query.shape[1] // key.shape[1]
    scores = torch.einsum("thd,khd->htk", query, key.repeat_interleave(repeat, 1)) * HEAD_SIZE**-0.5
    weights = scores.masked_fill(~sees, -torch.inf).softmax(-1)
    return torch.einsum("htk,khd->thd", weights, value.repeat_interleave(repeat, 1)).flatten(1)


def mlp(x: torch.Tensor, w: Tensors, at: str) -> torch.Tensor:
    gate, up = x @ w[f"{at}mlp.gate_proj.weight"].T, x @ w[f"{at}mlp.up_proj.weight"].T
    return (torch.nn.functional.silu(gate) * up) @ w[f"{at}mlp.down_proj.weight"].T


def self_attention(x: torch.Tensor, w: Tensors, at: str, positions: torch.Tensor) -> torch.Tensor:
    q, k, v = (split(x @ w[f"{at}self_attn.{name}_proj.weight"].T) for name in "qkv")
    sees = torch.ones(len(x), len(x)).tril().bool()
    return attended(rotated(q, positions), rotated(k, positions), v, sees) @ w[f"{at}self_attn.o_proj.weight"].T


def llama_layer(x: torch.Tensor, w: Tensors, at: str, positions: torch.Tensor) -> torch.Tensor:
    normed = rms(x, w[f"{at}input_layernorm.weight"]) if f"{at}input_layernorm.weight" in w else x
    x = x + self_attention(normed, w, at, positions)
    return x + mlp(rms(x, w[f"{at}post_attention_layernorm.weight"]), w, at)


def eagle3(
    w: Tensors, taps: list[torch.Tensor], embedded: torch.Tensor, first: str, norm_before_residual: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """(what is before the last norm, logits) of all rows; `first` is the beginning of the first layer's names."""
    if "fc_norm.0.weight" in w:
        taps = [rms(tap, w[f"fc_norm.{i}.weight"]) for i, tap in enumerate(taps)]
    beside = torch.cat(taps, -1)
    g = (rms(beside, w["input_norm.weight"]) if "input_norm.weight" in w else beside) @ w["fc.weight"].T
    positions = torch.arange(len(g))
    normed = rms(g, w[f"{first}hidden_norm.weight"])
    x = torch.cat([rms(embedded, w[f"{first}input_layernorm.weight"]), normed], -1)
    x = (normed if norm_before_residual else g) + self_attention(x, w, first, positions)
    x = x + mlp(rms(x, w[f"{first}post_attention_layernorm.weight"]), w, first)
    for index in range(1, 9):
        if f"layers.{index}.input_layernorm.weight" in w:
            x = llama_layer(x, w, f"layers.{index}.", positions)
    return x, rms(x, w["norm.weight"]) @ w["lm_head.weight"].T


def eagle1(w: Tensors, hidden: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
    """What comes in place of the target's next last hidden states."""
    x = torch.cat([embedded, hidden], -1) @ w["fc.weight"].T + w.get("fc.bias", torch.zeros(1))
    return llama_layer(x, w, "layers.0.", torch.arange(len(x)))


def block(
    w: Tensors, taps: list[torch.Tensor], embedded: torch.Tensor, start: int, is_causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states (B, h) behind the last norm of a block at `start`, the context before it, of Qwen3's layers."""
    c = rms(torch.cat(taps, -1)[:start] @ w["fc.weight"].T, w["hidden_norm.weight"])
    size = len(embedded)
    before, within = torch.arange(start), torch.arange(start, start + size)
    own = torch.ones(size, size).tril().bool() if is_causal else torch.ones(size, size).bool()
    sees = torch.cat([torch.ones(size, start).bool(), own], 1)
    x, index = embedded, 0
    while f"layers.{index}.mlp.up_proj.weight" in w:
        at = f"layers.{index}."
        normed = rms(x, w[f"{at}input_layernorm.weight"])
        q = split(normed @ w[f"{at}self_attn.q_proj.weight"].T)
        k, v = (split(torch.cat([c, normed]) @ w[f"{at}self_attn.{name}_proj.weight"].T) for name in "kv")
        q, k = rms(q, w[f"{at}self_attn.q_norm.weight"]), rms(k, w[f"{at}self_attn.k_norm.weight"])
        mixed = attended(rotated(q, within), rotated(k, torch.cat([before, within])), v, sees)
        x = x + mixed @ w[f"{at}self_attn.o_proj.weight"].T
        x = x + mlp(rms(x, w[f"{at}post_attention_layernorm.weight"]), w, at)
        index += 1
    hidden = rms(x, w["norm.weight"])
    return hidden, c


def medusa(w: Tensors, hidden: torch.Tensor, head: int, num_layers: int) -> torch.Tensor:
    x = hidden
    for layer in range(num_layers):
        at = f"{head}.{layer}.linear."
        x = x + torch.nn.functional.silu(x @ w[f"{at}weight"].T + w[f"{at}bias"])
    return x


def mixed(w: Tensors, names: dict[str, str], hidden: torch.Tensor, embedded: torch.Tensor, order: str) -> torch.Tensor:
    """What an MTP layer's decoder gets: both normed, side by side in the given order, through its projection."""
    parts = {"e": rms(embedded, w[names["token"]]), "h": rms(hidden, w[names["hidden"]])}
    return torch.cat([parts[one] for one in order], -1) @ w[names["proj"]].T
