"""The model cards, written from the figures."""

# ruff: noqa: E501 (prose)

from __future__ import annotations

from pathlib import Path

from data import DOMAINS
from evaluate import Figures

HEAD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
tags: [speculative-decoding, tiny]
---

"""

DATA = """## Data and licences

| domain | source | licence | held out |
|---|---|---|---|
| story | a 4.2 MB slice of TinyStories | CDLA-Sharing-1.0 | 3 % of the stories, by hash |
| play | Tiny Shakespeare | public domain | 4 % of the passages, by hash |
| novel | Pride and Prejudice | public domain | 6 % of the passages, by hash |
| command | SNIPS spoken commands, written as `Command: ...` and `JSON: {...}` | CC0 | its own validation files |
| maths | GSM8K, written as `Question: ...` and `Answer: ...` | MIT | its own test file |

The weights and this card are Apache-2.0, as the rest of the project. Every training document begins behind
`<|endoftext|>`, which is both the first and the last token; the tokenizer (byte-level BPE, 4,096 entries, digits
one by one) adds nothing by itself.
"""

LIMITS = """## What it is not

A model of this size, trained for so short a time, writes nonsense. It cannot do sums, knows nothing of the world, repeats
itself and hardly copies from its context: it names the right intent of a command and invents the values of its slots.
Rely on it for nothing but trying, testing and timing decoders. It has seen sequences of at most 1,024 tokens.
"""


def target_card(figures: Figures) -> str:
    target, run = figures["target"], figures["target_run"]
    return HEAD + "\n".join(
        [
            "# paceline-tiny\n",
            f"A Llama of {target['parameters']:,} parameters ({target['shape']}, tied embeddings), "
            "trained from nothing by `recipes/tiny` so that Paceline can be tried, tested and measured "
            "offline. Its drafter is `paceline-tiny-draft`.\n",
            training(run),
            losses(target["held_out"], "paceline-tiny", figures["five_gram"]),
            commands(figures["commands"]),
            DATA,
            LIMITS,
            samples(figures["samples"]),
        ]
    )


def drafter_card(figures: Figures) -> str:
    drafter, run = figures["drafter"], figures["drafter_run"]
    return HEAD + "\n".join(
        [
            "# paceline-tiny-draft\n",
            f"A Llama of {drafter['parameters']:,} parameters ({drafter['shape']}, tied embeddings): the drafter "
            "for `paceline-tiny`, with the same tokenizer. It began with the principal components of the target's "
            "embeddings and was taught the target's distribution (0.9 of the loss is the divergence from it, 0.1 "
            f"the token itself), half on real training text, half on {run['sampled_tokens']:,} tokens of the "
            "target's own samples, at temperatures 1, 0.7 and 0.\n",
            training(run),
            losses(drafter["held_out"], "paceline-tiny-draft", figures["five_gram"]),
            agreement(figures["agreement"], figures["forward_ms"]),
            DATA,
            LIMITS,
        ]
    )


def training(run: Figures) -> str:
    return (
        "## Training\n\n"
        f"{run['steps']:,} steps of 2,048 tokens, {run['tokens']:,} tokens in all, in "
        f"{run['seconds'] / 60:.0f} minutes on {run['hardware']}. AdamW (0.9, 0.95; weight decay 0.1), warm-up of "
        f"100 steps to a rate of {run['rate']:g}, then constant, then {run['decay']} steps of linear decay; sequences "
        "of 256 tokens, 1,024 in the decay; stored in bfloat16. All figures below were measured on the stored "
        "weights, computed in fp32.\n"
    )


def losses(model: Figures, name: str, baseline: Figures) -> str:
    rows = [loss_row(d, model[d], baseline[d]) for d in DOMAINS]
    return "\n".join(
        [
            "## Held-out loss\n",
            "Beside an interpolated Kneser-Ney 5-gram model of the same documents, on the same held-out tokens.\n",
            f"| domain | tokens | {name}, nats/token | 5-gram | {name}, bits/byte | 5-gram |",
            "|---|---:|---:|---:|---:|---:|",
            *rows,
            "",
        ]
    )


def loss_row(domain: str, model: Figures, baseline: Figures) -> str:
    numbers = [f"{figure[key]:.3f}" for key in ("nats_per_token", "bits_per_byte") for figure in (model, baseline)]
    return f"| {domain} | {model['tokens']:,} | " + " | ".join(numbers) + " |"


def commands(result: Figures) -> str:
    return (
        "## Held-out commands\n\n"
        f"Greedy answers to {result['commands']} held-out SNIPS commands: {result['valid_json']:.1%} are valid "
        f"JSON, {result['right_intent']:.1%} name the right intent, {result['all_slots_right']:.1%} are right in "
        "every slot.\n"
    )


def agreement(result: Figures, forward: Figures) -> str:
    rows = [f"| {d} | {result[d]['same_first_choice']:.1%} | {result[d]['overlap']:.1%} |" for d in DOMAINS]
    return "\n".join(
        [
            "## Agreement with paceline-tiny on held-out text\n",
            "Same first choice, and overlap of the distributions (what is accepted at temperature 1).\n",
            "| domain | same first choice | overlap |",
            "|---|---:|---:|",
            *rows,
            "",
            f"One forward of one token behind 64 others takes {forward['drafter']:.2f} ms beside the target's "
            f"{forward['target']:.2f} ms ({forward['drafter'] / forward['target']:.0%}; transformers, fp32, one "
            "thread, the least of 200).\n",
        ]
    )


def samples(writings: list[tuple[str, str]]) -> str:
    parts = [
        "## Ten samples, not chosen\n",
        "Seeds 0 to 9, temperature 0.8, 100 tokens; the prompt stands in «marks».\n",
    ]
    for seed, (opening, text) in enumerate(writings):
        quoted = f"«{opening}»" + text
        parts.append(f"{seed}.\n\n```text\n{quoted.strip()}\n```\n")
    return "\n".join(parts)


def write(folder: Path, text: str) -> None:
    folder.joinpath("README.md").write_text(text, "utf-8")
