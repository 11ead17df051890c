"""Trains a small German-English translator on image captions. Stopped at any time, the same command goes on."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from data import Pair, batches, pairs_of, read_captions, train_tokenizer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer, MarianConfig, MarianMTModel, PreTrainedTokenizerFast

WARMUP, SMOOTHING = 300, 0.1


@dataclass
class State:
    """How far a run has come."""

    step: int = 0
    epoch: int = 0
    batch: int = 0  # of the epoch: those before it are done
    seconds: float = 0.0
    loss: float = 0.0  # a running mean


def new_model(tokenizer: PreTrainedTokenizerFast, width: int, layers: int) -> MarianMTModel:
    """A Marian model with one vocabulary for both languages."""
    config = MarianConfig(
        vocab_size=len(tokenizer),
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=width // 64,
        decoder_attention_heads=width // 64,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        max_position_embeddings=256,
        activation_function="swish",
        scale_embedding=True,
        dropout=0.1,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        forced_eos_token_id=None,
    )
    return MarianMTModel(config)


def loss_of(model: MarianMTModel, source: Tensor, target: Tensor, pad: int, smoothing: float) -> Tensor:
    """The mean loss of the targets' tokens."""
    start = torch.full_like(target[:, :1], pad)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(
            input_ids=source, attention_mask=source != pad, decoder_input_ids=torch.cat([start, target[:, :-1]], 1)
        ).logits
    flat = logits.float().flatten(0, 1)
    return functional.cross_entropy(flat, target.flatten(), ignore_index=pad, label_smoothing=smoothing)


def rate_at(step: int, planned: int, peak: float) -> float:
    """A linear warm-up, then a linear decay to nothing."""
    return peak * min((step + 1) / WARMUP, max(planned - step, 0) / max(planned - WARMUP, 1), 1.0)


@torch.no_grad()
def held_out_loss(model: MarianMTModel, pairs: list[Pair], num_tokens: int, pad: int) -> float:
    """The loss on pairs that were not trained on."""
    model.eval()
    found = [
        (float(loss_of(model, *batch, pad, 0.0)), int((batch[1] != pad).sum()))
        for batch in batches(pairs, np.random.default_rng(0), num_tokens, pad)
    ]
    model.train()
    return sum(loss * count for loss, count in found) / sum(count for _, count in found)


class Run:
    """One training, in a folder that says how far it has come."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.work = args, Path(args.work)
        self.work.mkdir(parents=True, exist_ok=True)
        self.tokenizer = self._tokenizer()
        self.pad = int(self.tokenizer.pad_token_id)
        self.pairs = pairs_of(Path(args.corpus), "train", self.tokenizer)
        torch.manual_seed(0)
        self.model = new_model(self.tokenizer, args.width, args.layers)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=args.rate, betas=(0.9, 0.98), weight_decay=0.01)
        self.state = State()
        if (self.work / "state.pt").exists():
            saved = torch.load(self.work / "state.pt", weights_only=True)
            self.state = State(**saved["state"])
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
        self.per_epoch = sum(1 for _ in self._epoch(0))
        self.planned = args.epochs * self.per_epoch

    def _tokenizer(self) -> PreTrainedTokenizerFast:
        folder = self.work / "tokenizer"
        if not folder.exists():
            texts = [text for name in ("de", "en") for text in read_captions(Path(self.args.corpus), "train", name)]
            train_tokenizer(texts, self.args.vocab).save_pretrained(folder)
        return AutoTokenizer.from_pretrained(folder)

    def _epoch(self, number: int) -> Iterator[tuple[Tensor, ...]]:
        return batches(self.pairs, np.random.default_rng([number, 1]), self.args.batch, self.pad)

    def train(self) -> bool:
        """Go on until the end, or until the time is up; whether it is the end."""
        self.model.train()
        begun, saved = time.time(), time.time()
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns) as progress:
            task = progress.add_task("training", total=self.planned, completed=self.state.step)
            for source, target in self._rest():
                self._step(source, target)
                progress.update(task, completed=self.state.step, description=f"loss {self.state.loss:.3f}")
                if time.time() - saved > self.args.save_every:
                    self._save(time.time() - saved)
                    saved = time.time()
                if time.time() - begun > self.args.seconds:
                    break
        self._save(time.time() - saved)
        return self.state.step >= self.planned

    def _rest(self) -> Iterator[tuple[Tensor, ...]]:
        while self.state.epoch < self.args.epochs:
            for number, batch in enumerate(self._epoch(self.state.epoch)):
                if number >= self.state.batch:
                    self.state.batch = number + 1
                    yield batch
            self.state.epoch, self.state.batch = self.state.epoch + 1, 0

    def _step(self, source: Tensor, target: Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.state.step, self.planned, self.args.rate)
        loss = loss_of(self.model, source, target, self.pad, SMOOTHING)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.state.step += 1
        now = float(loss.detach())
        self.state.loss = 0.98 * self.state.loss + 0.02 * now if self.state.loss else now

    def _save(self, seconds: float) -> None:
        self.state.seconds += seconds
        content = {"state": asdict(self.state), "model": self.model.state_dict()}
        torch.save({**content, "optimizer": self.optimizer.state_dict()}, self.work / "state.new")
        os.replace(self.work / "state.new", self.work / "state.pt")

    def finish(self) -> None:
        """Write the model, its tokenizer and what became of it."""
        folder = self.work / "model"
        held_out = held_out_loss(self.model, pairs_of(Path(self.args.corpus), "val", self.tokenizer), 4096, self.pad)
        self.model.eval().save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        parameters = sum(p.numel() for p in self.model.parameters())
        facts = {"parameters": parameters, "held_out_loss": held_out, **asdict(self.state), **vars(self.args)}
        (folder / "training.json").write_text(json.dumps(facts, indent=1))
        print(f"{folder}: {parameters / 1e6:.1f} M parameters, held-out loss {held_out:.3f} nats a token")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True, help="the folder of Multi30k: train.de.gz, train.en.gz, val...")
    parser.add_argument("--work", required=True, help="where the run lives, and at its end the model")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long; go on another time")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--vocab", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=2048, help="tokens of a side")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--save-every", type=float, default=60.0, help="seconds")
    run = Run(parser.parse_args())
    if run.train():
        run.finish()


if __name__ == "__main__":
    main()
