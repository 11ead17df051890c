"""What it costs that one thread owns the engine: the bundled model, some 0.3 ms a step, plain decoding.

usage: python benchmarks/hand_over.py

The same request is decoded in the engine's thread in one go, by `generate`, and by `stream`, in turns. Medians, per
token of a long output and for an output of one token.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import paceline
from paceline.options import read_call

PROMPT, LONG, ROUNDS = "Once upon a time", 400, 31


def in_one_go(llm: paceline.LLM, max_tokens: int) -> None:
    """Every step in the engine's thread, without anybody who waits for tokens."""
    [request] = llm._runtime.requests(PROMPT, read_call(None, {"max_tokens": max_tokens, "ignore_eos": True}))[0]

    def decode() -> None:
        llm._runtime.thread.engine.add(request)
        while request.finish_reason is None:
            llm._runtime.thread.engine.step()

    llm._runtime.thread.call(decode)


def generated(llm: paceline.LLM, max_tokens: int) -> None:
    """A caller that waits for the whole output."""
    llm.generate(PROMPT, max_tokens=max_tokens, ignore_eos=True)


def streamed(llm: paceline.LLM, max_tokens: int) -> None:
    """A caller that takes each token as it comes."""
    for _ in llm.stream(PROMPT, max_tokens=max_tokens, ignore_eos=True):
        pass


def seconds(way: Callable[[paceline.LLM, int], None], llm: paceline.LLM, max_tokens: int) -> float:
    """How long one output takes."""
    started = time.perf_counter()
    way(llm, max_tokens)
    return time.perf_counter() - started


def main() -> None:
    """The command."""
    ways = (in_one_go, generated, streamed)
    with paceline.LLM(drafters="none") as llm:
        for max_tokens in (LONG, 1):
            times: dict[str, list[float]] = {way.__name__: [] for way in ways}
            for number in range(ROUNDS + 1):
                for way in ways:
                    taken = seconds(way, llm, max_tokens)
                    if number:  # the first of each is not counted
                        times[way.__name__].append(taken / max_tokens)
            figures = ", ".join(f"{name} {median(values) * 1e6:.0f} us" for name, values in times.items())
            print(f"{max_tokens} tokens, per token: {figures}")


if __name__ == "__main__":
    main()
