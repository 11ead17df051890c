"""The whole recipe: tokenizer, target, samples, drafter, figures, model cards. What is done is not redone."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
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
    parser.add_argument("--tokens", type=int, default=4_000_000, help="tokens of the target's first round")
    parser.add_argument("--copy-tokens", type=int, default=1_800_000, help="tokens of its second round, with copies")
    parser.add_argument("--drafter-tokens", type=int, default=1_200_000, help="tokens to train the drafter on")
    parser.add_argument("--samples", type=int, default=1280, help="samples of 256 tokens from the target")
    parser.add_argument("--seed", type=int, default=0)
    default = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    parser.add_argument("--hardware", default=default, help="what the model cards say of the machine")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    documents, held_out = data.load_documents(args.corpora)
    tokenizer = data.train_tokenizer(documents)
    encoded = data.encode(tokenizer, documents)
    real = data.stream(encoded, args.tokens, args.seed)
    encoded |= data.encode(tokenizer, {data.COPY: data.copies(documents, 12_000, args.seed)})
    held_out |= {data.COPY: data.copies(held_out, 300, args.seed)}
    mixed = data.stream(encoded, args.copy_tokens, args.seed + 1)
    runs = {
        "target_runs": train_target(args, tokenizer, real, mixed),
        "drafter_runs": train_drafter(args, tokenizer, encoded, mixed),
    }
    figures = runs | measured(args, tokenizer, encoded, held_out)
    cards.write(args.out / TARGET, cards.target_card(figures, args.hardware))
    cards.write(args.out / DRAFTER, cards.drafter_card(figures, args.hardware))


def train_target(
    args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast, real: data.Tokens, mixed: data.Tokens
) -> list[evaluate.Figures]:
    """Two rounds: the five domains, then the same with copies; a small model does not learn to copy by itself."""
    target = model.build(TARGET, args.seed)
    rounds = [
        ("target", real, train.Schedule(args.tokens)),
        ("target-copies", mixed, train.Schedule(args.copy_tokens, decay=300)),
    ]
    runs = []
    for label, tokens, schedule in rounds:
        state = train.fit(target, model.next_token_loss, tokens, schedule, args.work, label)
        runs.append(spent(state, schedule))
    model.install(target, tokenizer, args.out / TARGET)
    return runs


def train_drafter(
    args: argparse.Namespace,
    tokenizer: PreTrainedTokenizerFast,
    encoded: dict[str, list[data.Tokens]],
    mixed: data.Tokens,
) -> list[evaluate.Figures]:
    target = model.load(args.out / TARGET).to(train.device())
    prompts = [d for domain in encoded.values() for d in domain[:300]]
    sampled = distill.samples(target, prompts, args.samples, 256, args.work, args.seed)
    tokens = distill.mixture(mixed, sampled, 1024, args.seed)
    drafter, schedule = model.build(DRAFTER, args.seed), train.Schedule(args.drafter_tokens, rate=3e-3)
    distill.adopt_embeddings(drafter, target)
    state = train.fit(drafter, distill.distillation_loss(target), tokens, schedule, args.work, "drafter")
    model.install(drafter, tokenizer, args.out / DRAFTER)
    return [spent(state, schedule) | {"sampled_tokens": len(sampled)}]


def spent(state: train.Progressed, schedule: train.Schedule) -> evaluate.Figures:
    tokens = state.step * schedule.batch
    return asdict(schedule) | {"steps": state.step, "tokens": tokens, "seconds": state.seconds}


def measured(
    args: argparse.Namespace,
    tokenizer: PreTrainedTokenizerFast,
    encoded: dict[str, list[data.Tokens]],
    held_out: data.Documents,
) -> evaluate.Figures:
    """Every figure of the model cards, kept in a file."""
    path = args.work / "figures.json"
    if path.exists():
        return json.loads(path.read_text("utf-8"))
    target, drafter = (model.load(args.out / name).to(train.device()) for name in (TARGET, DRAFTER))
    unseen = data.encode(tokenizer, held_out)
    figures = {
        "target": figures_of(target, unseen, held_out),
        "drafter": figures_of(drafter, unseen, held_out),
        "five_gram": evaluate.baseline_losses(encoded, unseen, held_out),
        "agreement": evaluate.agreement(target, drafter, unseen),
        "forward_ms": {"target": evaluate.forward_ms(target), "drafter": evaluate.forward_ms(drafter)},
        "commands": evaluate.understanding(target, tokenizer, held_out["command"]),
        "copies": evaluate.copying(target, tokenizer, held_out[data.COPY]),
        "samples": evaluate.writings(target, tokenizer),
    }
    path.write_text(json.dumps(figures, indent=1), "utf-8")
    return figures


def figures_of(
    subject: model.LlamaForCausalLM, unseen: dict[str, list[data.Tokens]], texts: data.Documents
) -> evaluate.Figures:
    held_out = evaluate.held_out_losses(subject, unseen, texts)
    return {"parameters": model.parameter_count(subject), "shape": model.shape(subject), "held_out": held_out}


if __name__ == "__main__":
    main()
