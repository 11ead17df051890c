"""The whole recipe: tokenizer, target, samples, drafter, figures, model cards; each stage is skipped once done."""

from __future__ import annotations

import argparse
from pathlib import Path

import data
import model
import train


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", type=Path, default=Path("../shared/corpora"))
    parser.add_argument("--work", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--out", type=Path, default=Path("src/paceline/bundled"))
    parser.add_argument("--tokens", type=int, default=4_000_000, help="tokens to train the target on")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    documents, held_out = data.load_documents(args.corpora)
    tokenizer = data.train_tokenizer(documents)
    tokens = data.stream(data.encode(tokenizer, documents), args.tokens, args.seed)
    target = model.build("paceline-tiny", args.seed)
    train.fit(target, model.next_token_loss, tokens, train.Schedule(args.tokens), args.work, "target")
    model.install(target, tokenizer, args.out / "paceline-tiny")


if __name__ == "__main__":
    main()
