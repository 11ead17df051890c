"""Captions translated plainly, from the source by `suffix`, and from an earlier translation of an edited source.

usage: python benchmarks/translation.py MODEL MULTI30K [--texts 40] [--captions 3] [--rounds 3] [--ffn N] [--json FILE]

MODEL is an encoder-decoder, such as recipes/translation makes one. Each text is so many captions of the test set; its
edited form has one word replaced by one of another caption. What is translated in turns is the edited text, and the
earlier translation is that of the text as it was. Each call is another tenant's: no source and no prefix is found. The
first texts' tokens are compared with transformers' `generate`, all with plain decoding's. Each way has a pacer of its
own, which learns over the rounds. `--ffn` grows the model in memory, its function unchanged: feed-forward layers get so
many units, the new ones with zeros for weights.
"""

from __future__ import annotations

import argparse
import gzip
import random
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM

import paceline
from paceline.console import Table, progress, show, write_json
from paceline.engine.ports import Pacer
from paceline.engine.request import fresh_tenant
from paceline.pacing import AdaptivePacer, FixedPacer, cost_table

WAYS: dict[str, dict[str, Any]] = {
    "plain": {"drafters": "none"},
    "prediction": {"drafters": "auto"},
    "prediction alone": {"drafters": ["prediction"]},
    "prediction, 15 drafts": {"drafters": ["prediction"], "pacer": FixedPacer(15)},
    "suffix": {"drafters": ["suffix"]},
    "auto": {"drafters": "auto"},
}
CHECKED = 10  # texts whose tokens are compared with transformers'
MAX_TOKENS = 120


def grown(model: Any, units: int) -> Any:
    """A Marian model whose feed-forward layers are wider, by units that add nothing."""
    for layer in (*model.get_encoder().layers, *model.get_decoder().layers):
        for name in ("fc1", "fc2"):
            old = getattr(layer, name)
            size = (old.in_features, units) if name == "fc1" else (units, old.out_features)
            new = torch.nn.Linear(*size)
            with torch.no_grad():
                new.weight.zero_()[: old.out_features, : old.in_features] = old.weight
                new.bias.zero_()[: old.out_features] = old.bias
            setattr(layer, name, new)
    model.config.encoder_ffn_dim = model.config.decoder_ffn_dim = units
    return model.eval()


def texts_of(folder: Path, count: int, size: int) -> list[str]:
    """So many texts of `size` captions each."""
    with gzip.open(folder / "test_2016_flickr.de.gz", "rt", encoding="utf-8") as file:
        captions = [line.strip() for line in file][: count * size]
    return [" ".join(captions[i : i + size]) for i in range(0, len(captions), size)]


def edited(texts: list[str], rng: random.Random) -> list[str]:
    """Each text with one of its longer words replaced by one of another text, capital letters as they were."""
    words = sorted({word for text in texts for word in text.split() if len(word) > 4 and word.isalpha()})
    found = []
    for text in texts:
        own = text.split()
        places = [i for i, word in enumerate(own) if len(word) > 4 and word.isalpha()]
        place = rng.choice(places)
        alike = [word for word in words if word[0].isupper() == own[place][0].isupper() and word != own[place]]
        own[place] = rng.choice(alike)
        found.append(" ".join(own))
    return found


def generated(model: Any, ids: list[int]) -> list[int]:
    """The tokens of transformers' greedy `generate`, without the first."""
    out = model.generate(torch.tensor([ids]), num_beams=1, do_sample=False, max_new_tokens=MAX_TOKENS)
    return out[0].tolist()[1:]  # type: ignore[no-any-return]


def measured(llm: paceline.LLM, way: str, pacer: Pacer, text: str, earlier: str) -> tuple[paceline.Output, float]:
    """An output and the seconds that the whole call took."""
    options = {"pacer": pacer, **WAYS[way]}
    if "prediction" in way:
        options["prediction"] = earlier
    started = time.perf_counter()
    output = llm.generate(text, max_tokens=MAX_TOKENS, tenant=fresh_tenant(), **options)
    return output, time.perf_counter() - started


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--texts", type=int, default=40)
    parser.add_argument("--captions", type=int, default=3, help="captions of a text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ffn", type=int, help="units of each feed-forward layer")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    before = texts_of(args.corpus, args.texts, args.captions)
    texts = edited(before, random.Random(0))
    seconds: dict[str, list[list[float]]] = {way: [[] for _ in texts] for way in WAYS}
    steps: dict[str, list[float]] = {way: [] for way in WAYS}
    decoding: dict[str, list[float]] = {way: [] for way in WAYS}
    model = AutoModelForSeq2SeqLM.from_pretrained(args.model).eval()
    model = grown(model, args.ffn) if args.ffn else model
    loaded = paceline.load(model, tokenizer=args.model)
    with loaded as llm, progress("translating", len(texts) * args.rounds) as bar:
        earlier = [output.text for output in llm.generate(before, max_tokens=MAX_TOKENS, drafters="none")]
        plain = [list(o.token_ids) for o in llm.generate(texts, max_tokens=MAX_TOKENS, drafters="none")]
        agreeing = sum(generated(model, llm.encode(t)) == plain[i] for i, t in enumerate(texts[:CHECKED]))
        target = llm.target
        pacers = {way: llm.runtime.thread.call(lambda: AdaptivePacer(cost_table(target, ""))) for way in WAYS}
        for number in range(args.rounds):
            for index, text in enumerate(texts):
                for way in random.Random(number * len(texts) + index).sample(list(WAYS), len(WAYS)):
                    output, taken = measured(llm, way, pacers[way], text, earlier[index])
                    assert list(output.token_ids) == plain[index], f"{way} changed text {index}"
                    seconds[way][index].append(taken)
                    steps[way].append(output.stats.mean_acceptance_length)
                    decoding[way].append(output.stats.decode_seconds)
                bar()
        report(args, seconds, steps, decoding, agreeing, sum(map(len, plain)) / len(plain), llm)


def report(
    args: argparse.Namespace,
    seconds: dict[str, list[list[float]]],
    steps: dict[str, list[float]],
    decoding: dict[str, list[float]],
    agreeing: int,
    length: float,
    llm: paceline.LLM,
) -> None:
    """Print the table, and write it where that is asked for."""
    best = {way: [median(rounds) for rounds in times] for way, times in seconds.items()}
    whole = {way: sum(times) for way, times in best.items()}
    checked = min(CHECKED, args.texts)
    assert llm.info is not None
    table = Table(
        f"{llm.info.num_parameters / 1e6:.1f} M parameters; {args.texts} texts of {args.captions} captions, "
        f"{length:.0f} tokens each, one word of each replaced",
        ("way", "ms a text", "times plain", "decoding alone", "tokens a step"),
        notes=[f"tokens as plain decoding has them: all; as generate has them: {agreeing} of {checked}"],
    )
    results: dict[str, Any] = {"agreeing": agreeing, "checked": checked, "mean_tokens": length}
    for way in WAYS:
        figures = {
            "ms": 1e3 * whole[way] / len(best[way]),
            "times_plain": whole["plain"] / whole[way],
            "decoding_times_plain": sum(decoding["plain"]) / sum(decoding[way]),
            "tokens_a_step": sum(steps[way]) / len(steps[way]),
        }
        table.rows.append((way, f"{figures['ms']:.1f}", *(f"{v:.2f}" for v in list(figures.values())[1:])))
        results[way] = figures
    show(table)
    write_json(args.json, {**results, "numerics": llm.target.numerics()})


if __name__ == "__main__":
    main()
