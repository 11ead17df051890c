"""The whole recipe: tokenizer, target, samples, drafter, figures, model cards. What is done is not redone."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import cards
import data
import distill
import evaluate
import model
import torch
import train
from transformers import PreTrainedTokenizerFast

TARGET, DRAFTER = "paceline-tiny", "paceline-tiny-draft"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", type=Path, default=Path("../shared/corpora"))
    parser.add_argument("--work", type=Path, default=Path("runs/tiny"), help="checkpoints, samples, logs, figures")
    parser.add_argument("--out", type=Path, default=Path("src/paceline/bundled"))
    parser.add_argument("--tokens", type=int, default=3_250_176, help="tokens to train the target on")
    parser.add_argument("--drafter-tokens", type=int, default=1_200_000, help="tokens to train the drafter on")
    parser.add_argument("--samples", type=int, default=1280, help="samples of 256 tokens from the target")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    documents, held_out = data.load_documents(args.corpora)
    tokenizer = data.train_tokenizer(documents)
    encoded = data.encode(tokenizer, documents)
    real = data.stream(encoded, args.tokens, args.seed)
    figures = {
        "target_run": train_target(args, tokenizer, real),
        "drafter_run": train_drafter(args, tokenizer, encoded, real),
    }
    figures |= measure(args, tokenizer, encoded, held_out)
    (args.work / "figures.json").write_text(json.dumps(figures, indent=1), "utf-8")
    cards.write(args.out / TARGET, cards.target_card(figures))
    cards.write(args.out / DRAFTER, cards.drafter_card(figures))


def train_target(args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast, real: data.Tokens) -> evaluate.Figures:
    target, schedule = model.build(TARGET, args.seed), train.Schedule(args.tokens)
    state = train.fit(target, model.next_token_loss, real, schedule, args.work, "target")
    model.install(target, tokenizer, args.out / TARGET)
    return spent(state, schedule)


def train_drafter(
    args: argparse.Namespace,
    tokenizer: PreTrainedTokenizerFast,
    encoded: dict[str, list[data.Tokens]],
    real: data.Tokens,
) -> evaluate.Figures:
    target = model.load(args.out / TARGET).to(train.device())
    prompts = [d for domain in data.DOMAINS for d in encoded[domain][:300]]
    sampled = distill.samples(target, prompts, args.samples, 256, args.work, args.seed)
    tokens = distill.mixture(real, sampled, 1024, args.seed)
    drafter, schedule = model.build(DRAFTER, args.seed), train.Schedule(args.drafter_tokens, rate=3e-3)
    distill.adopt_embeddings(drafter, target)
    state = train.fit(drafter, distill.distillation_loss(target), tokens, schedule, args.work, "drafter")
    model.install(drafter, tokenizer, args.out / DRAFTER)
    return spent(state, schedule) | {"sampled_tokens": len(sampled)}


def spent(state: train.Progressed, schedule: train.Schedule) -> evaluate.Figures:
    place = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores in fp32"
    tokens = state.step * schedule.batch
    return {
        "steps": state.step, "tokens": tokens, "seconds": state.seconds, "hardware": place,
        "rate": schedule.rate, "decay": schedule.decay,
    }  # fmt: skip


def measure(
    args: argparse.Namespace,
    tokenizer: PreTrainedTokenizerFast,
    encoded: dict[str, list[data.Tokens]],
    held_out: data.Documents,
) -> evaluate.Figures:
    target, drafter = (model.load(args.out / name).to(train.device()) for name in (TARGET, DRAFTER))
    unseen = data.encode(tokenizer, held_out)
    return {
        "target": figures_of(target, unseen, held_out),
        "drafter": figures_of(drafter, unseen, held_out),
        "five_gram": evaluate.baseline_losses(encoded, unseen, held_out),
        "agreement": evaluate.agreement(target, drafter, unseen),
        "forward_ms": {"target": evaluate.forward_ms(target), "drafter": evaluate.forward_ms(drafter)},
        "commands": evaluate.understanding(target, tokenizer, held_out["command"]),
        "samples": evaluate.writings(target, tokenizer),
    }


def figures_of(
    subject: model.LlamaForCausalLM, unseen: dict[str, list[data.Tokens]], texts: data.Documents
) -> evaluate.Figures:
    held_out = evaluate.held_out_losses(subject, unseen, texts)
    return {"parameters": model.parameter_count(subject), "shape": model.shape(subject), "held_out": held_out}


if __name__ == "__main__":
    main()
