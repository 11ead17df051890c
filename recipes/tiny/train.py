"""A resumable training loop: AdamW, warm-up, constant rate, linear decay."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from data import Tokens
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass
class Schedule:
    """What to spend and how. Decay ends with the tokens, or starts as soon as the file DECAY_NOW exists."""

    tokens: int
    rate: float = 2e-3
    batch: int = 2048  # tokens a step
    length: int = 256  # tokens a sequence
    decay_length: int = 1024  # longer sequences in the decay, so that later positions are learnt too
    warmup: int = 100
    decay: int = 400
    save_every: float = 120.0  # seconds

    def rate_at(self, step: int, decay_start: int) -> float:
        left = 1.0 if decay_start < 0 else 1 - (step - decay_start) / self.decay
        return self.rate * min(1.0, (step + 1) / self.warmup) * max(0.02, left)


@dataclass
class Progressed:
    """How far a run has come."""

    step: int = 0
    decay_start: int = -1
    seconds: float = 0.0
    loss: float = 0.0


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def precision() -> AbstractContextManager[object]:
    """bf16 where the hardware multiplies in it, else fp32."""
    has_bf16 = any(getattr(torch.cpu, n, bool)() for n in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    if device().type == "cuda" or has_bf16:
        return torch.autocast(device().type, torch.bfloat16)
    return nullcontext()


def optimizer_for(model: nn.Module, rate: float) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    gains = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)


def fit(model: nn.Module, loss: Loss, stream: Tokens, schedule: Schedule, work: Path, label: str) -> Progressed:
    """Train on consecutive stretches of `stream`, saving as `label`; returns how far it came."""
    model.to(device()).train()
    optimizer, checkpoint = optimizer_for(model, schedule.rate), work / f"{label}.safetensors"
    state = restore(model, optimizer, checkpoint)
    planned, saved, begun = schedule.tokens // schedule.batch, time.time(), time.time() - state.seconds
    with bar() as progress:
        task = progress.add_task(label, total=planned, completed=state.step, note="")
        while state.decay_start < 0 or state.step < state.decay_start + schedule.decay:
            if state.decay_start < 0 and (state.step >= planned - schedule.decay or told_to_decay(work)):
                state.decay_start = state.step
                progress.update(task, total=state.step + schedule.decay)
            step(model, loss, optimizer, stream, schedule, state)
            state.seconds = time.time() - begun
            note = f"loss {state.loss:.3f}, {schedule.batch * state.step / state.seconds:.0f} tokens/s"
            progress.update(task, completed=state.step, note=note)
            if state.step % 50 == 0:
                log(work, label, state, schedule)
            if time.time() - saved > schedule.save_every:
                save(model, optimizer, checkpoint, state)
                saved = time.time()
    save(model, optimizer, checkpoint, state)
    return state


def told_to_decay(work: Path) -> bool:
    """Whether someone asked for an early end; asking counts once."""
    wish = work / "DECAY_NOW"
    asked = wish.exists()
    wish.unlink(missing_ok=True)
    return asked


def step(
    model: nn.Module,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    stream: Tokens,
    schedule: Schedule,
    state: Progressed,
) -> None:
    length = schedule.length if state.decay_start < 0 else schedule.decay_length
    inputs, targets = batch(stream, state.step, schedule.batch, length)
    for group in optimizer.param_groups:
        group["lr"] = schedule.rate_at(state.step, state.decay_start)
    with precision():
        value = loss(model, inputs, targets)
    value.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    state.step += 1
    state.loss = value.item() if state.step == 1 else 0.98 * state.loss + 0.02 * value.item()


def batch(stream: Tokens, step: int, size: int, length: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets (size / length, length); the stream repeats if it is too short."""
    piece = stream.take(np.arange(step * size, (step + 1) * size + 1), mode="wrap")
    tokens = torch.from_numpy(piece.astype(np.int64)).to(device())
    return tokens[:-1].view(-1, length), tokens[1:].view(-1, length)


def save(model: nn.Module, optimizer: torch.optim.Optimizer, path: Path, state: Progressed) -> None:
    """Weights, both moments and the counters in one safetensors file, replaced in one move."""
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[f"model.{name}"] = parameter.detach().contiguous()
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}.{name}"] = value.contiguous()
    part = path.with_suffix(".part")
    save_file(tensors, part, metadata={"state": json.dumps(asdict(state))})
    os.replace(part, path)


def restore(model: nn.Module, optimizer: torch.optim.Optimizer | None, path: Path) -> Progressed:
    """Fill model and optimizer from a checkpoint, if there is one."""
    if not path.exists():
        return Progressed()
    with safe_open(path, framework="pt", device=str(device())) as file, torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(file.get_tensor(f"model.{name}"))
            if optimizer is not None:
                keys = ("step", "exp_avg", "exp_avg_sq")
                optimizer.state[parameter] = {k: file.get_tensor(f"{k}.{name}") for k in keys}
        return Progressed(**json.loads(file.metadata()["state"]))


def log(work: Path, label: str, state: Progressed, schedule: Schedule) -> None:
    with (work / f"{label}.jsonl").open("a") as file:
        row = asdict(state) | {"tokens": state.step * schedule.batch}
        file.write(json.dumps(row) + "\n")


def bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
