"""`python -m exactness.isolated`: for each number of threads, under each setting, what differs from plain decoding.

Threads and instruction sets are settings of a process, read at the first computation. So this process reads the code,
computes nothing, and answers each question from a fork.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

import torch
from transformers.activations import ACT2FN

from exactness.decoding import RandomTrees, decode
from exactness.scenes import Case, rows_that_differ_alone
from exactness.subjects import Subject, job
from paceline.model.numerics import WholeVectors
from paceline.model.pool import LayerShape

# Wide enough that threads share the activations.
SUBJECTS: list[tuple[str, torch.dtype, dict[str, Any]]] = [
    ("llama-multi-query", torch.float32, {}),
    ("gemma2", torch.float32, {"intermediate_size": 1000}),
    ("gpt-neox", torch.bfloat16, {"intermediate_size": 1376}),
]
ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh", "gelu_new", "sigmoid", "relu2")


def different_logits(architecture: str, dtype: torch.dtype, changes: dict[str, Any]) -> list[str]:
    subject = Subject(architecture, dtype, **changes)
    jobs = [job(1, 1, 9), job(129, 2, 13, temperature=0.7), job(140, 3, 11), job(263, 4, 9, temperature=1.0)]
    found = []
    for seed, (first, last, budget) in enumerate(((2, 3, 7), (1, 2, 33), (1, 3, 18), (0, 4, 9), (0, 4, 15))):
        some = jobs[first:last]
        drafter = RandomTrees(subject.plain, some, seed, fill=True)
        found += subject.plain.differences(some, decode(subject.target, some, drafter, budget))
    subject.llm.close()
    return [f"{architecture} {dtype}: {line}" for line in found]


def different_activations(dtype: torch.dtype) -> list[str]:
    found = []
    for name in ACTIVATIONS:
        activation = WholeVectors(ACT2FN[name])
        for width in (172, 1000):
            rows = (torch.randn(40, width, generator=torch.Generator().manual_seed(width)) * 4).to(dtype)
            expected = activation(rows[:16])
            for count in range(1, 41):
                moved = torch.cat([rows[40 - count + 1 :], rows[:1]])
                if not torch.equal(activation(moved)[-1], expected[0]):
                    found.append(f"{name} {dtype}: the last of {count} rows of {width}")
    return found


def different_attention() -> list[str]:
    """With a single key head, a row alone is a lone product, which threads may share."""
    found = []
    trees = ((130, (-1, 0, 0)), (70, (-1, 0)), (300, (-1,)))
    for dim in (8, 20, 24, 36, 128):
        for group in (1, 5, 8):
            for window in (0, 100):
                case = Case(LayerShape(1, dim, dim), group, trees, window, 0.0, torch.float32, 2, dim)
                if rows_that_differ_alone(case):
                    found.append(f"attention in {group} x {dim}, window {window}")
    return found


def report(threads: list[int]) -> list[str]:
    """What differs, and that each number of threads was tried."""
    lines = []
    with torch.inference_mode():
        for count in threads:
            torch.set_num_threads(count)
            found = [line for subject in SUBJECTS for line in different_logits(*subject)]
            if count > 1:
                found += different_activations(torch.float32) + different_activations(torch.bfloat16)
                found += different_attention()
            lines += [f"{count} threads: {line}" for line in found] + [f"{count} threads checked"]
    return lines


def serve() -> None:
    """Answer each line, `[threads, variables]`, from a fork of its own."""
    for line in sys.stdin:
        threads, setting = json.loads(line)
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            if status:
                print(json.dumps([f"ended with status {status}"]), flush=True)
            continue
        status = 1
        try:
            os.environ.update(setting)
            print(json.dumps(report(threads)), flush=True)
            status = 0
        except Exception:
            traceback.print_exc()
        os._exit(status)


if __name__ == "__main__":
    serve()
    os._exit(0)  # to take all the code apart takes seconds
