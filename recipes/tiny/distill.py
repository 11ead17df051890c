"""The drafter's data and loss: the target's samples beside real text, its distribution on both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import Tokens
from model import logits
from rich.progress import track
from torch import Tensor, nn
from train import Loss, device
from transformers import LlamaForCausalLM

TEMPERATURES = (1.0, 1.0, 0.7, 0.0)  # of the batches of samples, in turn


@torch.inference_mode()
def samples(target: LlamaForCausalLM, prompts: list[Tokens], count: int, length: int, work: Path, seed: int) -> Tokens:
    """`count` texts of `length` tokens that begin as real documents do, one after another; kept in a file."""
    path = work / "samples.npy"
    if path.exists():
        return np.load(path, allow_pickle=False)
    torch.manual_seed(seed)
    target.to(device()).eval()
    draw, rows, width = np.random.default_rng(seed), [], 64
    for i in track(range(-(-count // width)), description="samples"):
        size = int(draw.integers(2, 13))
        chosen = draw.choice(len(prompts), width)
        opening = np.stack([np.resize(prompts[c], size) for c in chosen]).astype(np.int64)
        heat = TEMPERATURES[i % len(TEMPERATURES)]
        rows.append(sample(target, torch.from_numpy(opening).to(device()), length, heat).numpy(force=True))
    tokens = np.concatenate(rows).astype(np.uint16).reshape(-1)
    np.save(path, tokens, allow_pickle=False)
    return tokens


def sample(model: LlamaForCausalLM, tokens: Tensor, length: int, heat: float) -> Tensor:
    """Rows of `length` tokens that continue `tokens`, through the separator and beyond."""
    cache, fresh, rows = None, tokens, [tokens]
    while sum(r.shape[1] for r in rows) < length:
        output = model(input_ids=fresh, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, scores = output.past_key_values, output.logits[:, -1].float()
        fresh = scores.argmax(-1, keepdim=True) if heat == 0 else torch.multinomial((scores / heat).softmax(-1), 1)
        rows.append(fresh)
    return torch.cat(rows, dim=1)


def mixture(real: Tokens, sampled: Tokens, block: int, seed: int) -> Tokens:
    """Blocks of both, shuffled: as much of the real text as there is of samples."""
    pieces = [t[: len(t) // block * block].reshape(-1, block) for t in (real[: len(sampled)], sampled)]
    both = np.concatenate(pieces)
    return np.random.default_rng(seed).permutation(both, axis=0).reshape(-1)


def distillation_loss(target: LlamaForCausalLM) -> Loss:
    """Mostly the divergence from the target's distribution, a little the tokens themselves."""

    def loss(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = logits(target, tokens).flatten(0, 1).float().log_softmax(-1)
        given = logits(model, tokens).flatten(0, 1).float().log_softmax(-1)
        divergence = F.kl_div(given, wanted, log_target=True, reduction="batchmean")
        return 0.9 * divergence + 0.1 * F.nll_loss(given, targets.flatten())

    return loss


def adopt_embeddings(model: LlamaForCausalLM, target: LlamaForCausalLM) -> None:
    """Start the drafter's embeddings as the principal components of the target's."""
    with torch.no_grad():
        table = target.model.embed_tokens.weight.float()
        centred = table - table.mean(0)
        directions = torch.linalg.svd(centred, full_matrices=False).Vh[: model.config.hidden_size]
        small = centred @ directions.T
        model.model.embed_tokens.weight.copy_(small * (0.05 / small.std()))
