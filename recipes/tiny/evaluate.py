"""Figures for the model cards, all on held-out documents and on the installed weights."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from data import DOMAINS, Documents, Tokens
from distill import sample
from model import logits
from ngram import KneserNey
from rich.progress import track
from torch import Tensor
from train import device
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

Figures = dict[str, Any]
OPENINGS = (
    "",
    "Once upon a time",
    "Tom and his dog",
    "KING:\nMy lord,",
    "JULIET:\n",
    "Elizabeth was",
    "Command: play some jazz by",
    "Command: book a table for",
    "Question: Anna has 3 apples.",
    "Question: A train",
)


@torch.inference_mode()
def scores(model: LlamaForCausalLM, document: Tokens) -> tuple[Tensor, Tensor]:
    """Log-probability of each token but the first (the separator), and the model's first choice there."""
    tokens = torch.from_numpy(document.astype(np.int64)).to(device())[None]
    given = logits(model, tokens[:, :-1])[0].float().log_softmax(-1)
    return given.gather(1, tokens[0, 1:, None])[:, 0].cpu(), given.argmax(-1).cpu()


def held_out_losses(model: LlamaForCausalLM, documents: dict[str, list[Tokens]], texts: Documents) -> Figures:
    """By domain: nats a token and bits a byte; documents are read one at a time behind the separator."""
    return {
        domain: summed([scores(model, d)[0].double().numpy() for d in documents[domain]], texts[domain])
        for domain in track(DOMAINS, description="held-out loss")
    }


def baseline_losses(train: dict[str, list[Tokens]], documents: dict[str, list[Tokens]], texts: Documents) -> Figures:
    """The same figures for a 5-gram model of the same training documents."""
    baseline = KneserNey([d for domain in DOMAINS for d in train[domain]])
    return {k: summed([baseline.log_probabilities(d) for d in documents[k]], texts[k]) for k in DOMAINS}


def summed(logs: list[np.ndarray], texts: list[str]) -> Figures:
    nats, tokens = -sum(float(x.sum()) for x in logs), sum(map(len, logs))
    size = sum(len(t.encode()) for t in texts)
    return {"tokens": tokens, "nats_per_token": nats / tokens, "bits_per_byte": nats / math.log(2) / size}


def agreement(target: LlamaForCausalLM, drafter: LlamaForCausalLM, documents: dict[str, list[Tokens]]) -> Figures:
    """Share of held-out positions with the same first choice, and the mean overlap of the distributions."""
    result = {}
    for domain in track(DOMAINS, description="agreement"):
        same, overlap, total = 0.0, 0.0, 0
        for document in documents[domain]:
            p, q = distribution(target, document), distribution(drafter, document)
            same += float((p.argmax(-1) == q.argmax(-1)).sum())
            overlap += float(torch.minimum(p, q).sum())
            total += len(p)
        result[domain] = {"same_first_choice": same / total, "overlap": overlap / total}
    return result


@torch.inference_mode()
def distribution(model: LlamaForCausalLM, document: Tokens) -> Tensor:
    tokens = torch.from_numpy(document[:-1].astype(np.int64)).to(device())[None]
    return F.softmax(logits(model, tokens)[0].float(), dim=-1)


@torch.inference_mode()
def continuations(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[str], new: int, heat: float
) -> list[str]:
    """What follows each prompt up to the separator or `new` tokens; prompts of one length go together."""
    encoded = [[tokenizer.bos_token_id, *ids] for ids in tokenizer(prompts)["input_ids"]]
    result = [""] * len(prompts)
    for length in sorted(set(map(len, encoded))):
        group = [i for i, ids in enumerate(encoded) if len(ids) == length]
        tokens = torch.tensor([encoded[i] for i in group], device=device())
        for i, row in zip(group, sample(model, tokens, length + new, heat).tolist(), strict=True):
            result[i] = tokenizer.decode(row[length:]).split(tokenizer.eos_token)[0]
    return result


def writings(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> list[tuple[str, str]]:
    """Ten samples, seeds 0 to 9, at temperature 0.8: shown whatever they are."""
    result = []
    for seed, opening in enumerate(OPENINGS):
        torch.manual_seed(seed)
        result.append((opening, continuations(model, tokenizer, [opening], 100, 0.8)[0]))
    return result


def understanding(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Figures:
    """Greedy answers to held-out commands: the share of valid JSON, of right intents, all slots right."""
    prompts = [text[: text.index("\nJSON:") + len("\nJSON:")] for text in texts]
    answers = continuations(model, tokenizer, prompts, 120, 0.0)
    valid = intent = exact = 0
    for text, prompt, answer in zip(texts, prompts, answers, strict=True):
        expected, given = json.loads(text[len(prompt) :]), parsed(answer)
        valid += given is not None
        intent += given is not None and given.get("intent") == expected["intent"]
        exact += given == expected
    n = len(texts)
    return {"commands": n, "valid_json": valid / n, "right_intent": intent / n, "all_slots_right": exact / n}


def parsed(answer: str) -> Figures | None:
    """The JSON object that `answer` is, or None."""
    try:
        value = json.loads(answer)
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


@torch.inference_mode()
def forward_ms(model: LlamaForCausalLM, times: int = 200) -> float:
    """Least milliseconds of one forward of one token behind 64 others, on one thread."""
    threads, spent = torch.get_num_threads(), []
    torch.set_num_threads(1)
    cache = model(input_ids=torch.zeros(1, 64, dtype=torch.long, device=device()), use_cache=True).past_key_values
    for _ in range(times):
        begun = time.perf_counter()
        model(
            input_ids=torch.zeros(1, 1, dtype=torch.long, device=device()),
            past_key_values=cache,
            use_cache=True,
        )
        spent.append(time.perf_counter() - begun)
        cache.crop(-1)
    torch.set_num_threads(threads)
    return 1e3 * min(spent)
