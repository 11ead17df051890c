"""transformers' own generation tests over accelerated models: which pass, which are handed over, which fail.

usage: scripts/transformers_tests TESTS [--families llama,bart] [--out FILE.md]

TESTS is the folder `tests` of a checkout of transformers, best of the installed release: its wheel does not hold
`generation/test_utils.py`, whose `GenerationTesterMixin` is run here on a tiny random model of each family. Each test
runs twice, first with transformers alone: what fails or is skipped there says nothing of Paceline and is left out.
Then every model has been given to `paceline.accelerate` where the test calls `eval`. "paceline" is a test whose calls
of generate were all decoded by Paceline, "in part" one with calls handed over too, "handed over" one with no others.
Greedy tokens of each call are held against transformers' own besides.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import logging
import sys
import threading
import unittest
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from transformers.utils import logging as transformers_logging

import paceline
from accelerating.same import TOLD, assert_up_to_ties, own
from exactness import translators
from models.families import tiny
from paceline.accelerating.calls import Call
from paceline.accelerating.derived import CACHES
from paceline.console import progress

DECODERS = ("llama", "gpt2", "qwen3", "mistral", "gpt_neox", "opt", "bloom", "mamba")
PAIRS = ("bart", "marian", "t5")
OURS, PART, OVER, WRONG, ALONE = "paceline", "in part", "handed over", "fails", "no call"
LENGTH, BATCH = 7, 2
_TOKENS: dict[str, Any] = {"bos_token_id": 1, "pad_token_id": 0, "num_key_value_heads": 4}
_DEVIATIONS = ("initializer_range", "init_std")
_HEADS: dict[str, Any] = {
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_attention_heads": 4,
    "num_heads": 4,
}


class ModelTester:
    """What the mixin asks of a family: its configuration and inputs."""

    def __init__(self, kind: str) -> None:
        model = translators.build(kind, **_HEADS) if kind in PAIRS else tiny(kind, **_TOKENS)
        self.model_class, self._config = type(model), model.config
        self.is_pair = model.config.is_encoder_decoder
        self.has_attentions = kind != "mamba"
        self.batch_size, self.seq_length = BATCH, LENGTH
        if self.is_pair:
            self.encoder_seq_length = LENGTH

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, torch.Tensor]]:
        """A configuration of its own, and a batch."""
        config = copy.deepcopy(self._config)
        for name in _DEVIATIONS:
            if hasattr(config, name):
                setattr(config, name, 0.3)  # at the usual 0.02 all tokens are as good as equal
        ids = torch.randint(3, config.vocab_size, (BATCH, LENGTH))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.is_pair:
            start = torch.full((BATCH, 1), config.decoder_start_token_id)
            inputs |= {"decoder_input_ids": start}
        return config, inputs


def case_of(mixin: type, kind: str) -> type[unittest.TestCase]:
    """The mixin's tests for a family."""
    tester = ModelTester(kind)
    settings = {
        "model_tester": tester,
        "all_model_classes": (tester.model_class,),
        "all_generative_model_classes": (tester.model_class,),
        "has_attentions": tester.has_attentions,
    }
    return type(f"Test_{kind}", (mixin, unittest.TestCase), settings)


def outcome_of(case: type[unittest.TestCase], name: str) -> unittest.TestResult:
    """One test, from the same random numbers every time."""
    result = unittest.TestResult()
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", paceline.HandedOverWarning)
        case(name).run(result)
    return result


def check_greedy(call: Call, found: Any) -> None:
    """Hold greedy tokens against transformers' own, which few of the tests do; not behind a cache, which has grown."""
    given = {name: value for name, value in call._given.items() if name not in ("assistant_model", "streamer")}
    given |= dict.fromkeys(("prompt_lookup_num_tokens", "output_attentions", "output_hidden_states"))
    if not (given.get("do_sample") or any(given.get(name) is not None for name in CACHES)):
        wanted = own(call._model, **{**given, **TOLD})
        assert_up_to_ties(getattr(found, "sequences", found), wanted)


@contextmanager
def accelerated(model_class: Any, calls: Counter[str]) -> Iterator[None]:
    """Meanwhile `eval` accelerates a model, and calls of its generate are counted by what became of them."""
    own_eval, own_decoded = model_class.eval, Call.decoded

    def eval_and_accelerate(model: Any) -> Any:
        own_eval(model)
        if threading.current_thread() is threading.main_thread() and "generate" not in vars(model):
            paceline.accelerate(model, cache_tokens=2048)  # what loads it in the engine's thread calls eval too
        return model

    def decoded(call: Call) -> Any:
        try:
            found = own_decoded(call)
        except BaseException:
            calls[OVER] += 1
            raise
        calls[OURS] += 1
        check_greedy(call, found)
        return found

    with patch.object(model_class, "eval", eval_and_accelerate), patch.object(Call, "decoded", decoded):
        yield


def verdict_of(case: Any, name: str) -> tuple[str, str]:
    """What became of a test, and why it failed if it did; empty where transformers alone does not pass it."""
    plain = outcome_of(case, name)
    if plain.skipped or not plain.wasSuccessful():
        return "", ""
    calls: Counter[str] = Counter()
    with accelerated(case.model_tester.model_class, calls):
        result = outcome_of(case, name)
    if not result.wasSuccessful():
        return WRONG, (result.failures + result.errors)[0][1]
    if not calls:
        return ALONE, ""
    return (OURS if not calls[OVER] else PART if calls[OURS] else OVER), ""


def table_of(found: dict[str, dict[str, str]], families: list[str]) -> str:
    """The verdicts by test, in how many families each, and all together."""
    columns = (OURS, PART, OVER, WRONG)
    lines = [f"| test | {' | '.join(columns)} |", f"|---{'|---' * len(columns)}|"]
    totals: Counter[str] = Counter()
    for name, verdicts in found.items():
        counts = Counter(verdicts.values())
        totals += counts
        if any(counts[column] for column in columns):
            lines.append(f"| `{name}` | {' | '.join(str(counts[column] or '') for column in columns)} |")
    number = sum(totals[column] for column in columns)
    lines.append(f"| all {number} | {' | '.join(str(totals[column]) for column in columns)} |")
    shares = ", ".join(f"{totals[column] / number:.0%} {column}" for column in columns)
    return "\n".join([*lines, "", f"Families: {', '.join(families)}. Of {number} tests that call generate: {shares}."])


def main() -> int:
    """Run, show, and say whether anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", type=Path)
    parser.add_argument("--families", default=",".join((*DECODERS, *PAIRS)))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    sys.path.insert(0, str(args.tests.resolve().parent))
    mixin = importlib.import_module("tests.generation.test_utils").GenerationTesterMixin
    families = args.families.split(",")
    cases = {kind: case_of(mixin, kind) for kind in families}
    names = unittest.TestLoader().getTestCaseNames(next(iter(cases.values())))
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    with progress("tests", len(names) * len(cases)) as advance:
        for kind, case in cases.items():
            for name in names:
                found[name][kind], why = verdict_of(case, name)
                if why:
                    print(f"{name}, {kind}:\n{why}")
                advance()
    table = table_of(found, families)
    print(table)
    if args.out is not None:
        args.out.write_text(table + "\n")
    return int(any(WRONG in verdicts.values() for verdicts in found.values()))


if __name__ == "__main__":
    sys.exit(main())
