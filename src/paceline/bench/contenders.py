"""What `paceline bench decode` lets compete: transformers' ways to generate, and Paceline's contenders.

Each gets the same prompt ids and emits exactly `max_tokens` tokens: none stops at an end of sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging

import paceline
from paceline.bench.names import ASSISTED, GENERATE, LOOKUP, PLAIN, PLAIN_AGAIN
from paceline.bundled import bundled_path
from paceline.console import progress
from paceline.drafters import available
from paceline.engine.request import fresh_tenant
from paceline.llm import LLM
from paceline.model.loading import parse_device, parse_dtype
from paceline.model.pretrained import read_model
from paceline.pacing import FixedPacer

_LOOKUP_TOKENS = 10


@dataclass(frozen=True)
class DecodeWork:
    """One output to decode."""

    ids: tuple[int, ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0


Result = tuple[tuple[int, ...], dict[str, Any] | None]  # token ids, and Paceline's statistics


@dataclass(frozen=True)
class Sweep:
    """One point of the sweep: drafters, and how many draft nodes they may propose per step."""

    drafters: tuple[str, ...]
    budget: int


@dataclass(frozen=True)
class DecodeContender:
    """A way to decode, by name; `sweep` says which part it has in the sweep of fixed contenders."""

    name: str
    run: Callable[[DecodeWork], Result]
    is_paceline: bool = False
    sweep: Sweep | None = None


@dataclass(frozen=True)
class Pair:
    """A target in Paceline and in transformers over the same weights, and a draft model if there is one."""

    name: str
    draft_name: str | None
    llm: LLM
    model: Any  # a PreTrainedModel, whose `generate` is not typed
    draft: Any

    @property
    def dtype(self) -> str:
        """The dtype of both."""
        return str(self.model.dtype).removeprefix("torch.")


@contextmanager
def load_pair(name: str, draft: str | None, device: str, dtype: str) -> Iterator[Pair]:
    """A pair ready to compete; meanwhile transformers is quiet and knows no end-of-sequence token."""
    where, what = parse_device(device), parse_dtype(dtype)
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with progress(f"{name}: loading"):
            model = read_model(name, what, where)
            draft_model = read_model(draft, what, where) if draft is not None else None
            llm = paceline.load(model, tokenizer=str(bundled_path(name) or name), drafters="none")
        with llm:
            for stock in (model, draft_model):
                if stock is not None:
                    stock.generation_config = GenerationConfig(pad_token_id=0)
            yield Pair(name, draft, llm, model, draft_model)
    finally:
        transformers_logging.set_verbosity(before)


def contenders(pair: Pair, budgets: Sequence[int]) -> list[DecodeContender]:
    """All contenders for a pair, the references first."""
    found = [
        DecodeContender(GENERATE, transformers_run(pair.model)),
        DecodeContender(LOOKUP, transformers_run(pair.model, prompt_lookup_num_tokens=_LOOKUP_TOKENS)),
    ]
    kinds = {"suffix": Sweep(("suffix",), 0)}
    if pair.draft is not None:
        assisted = transformers_run(pair.model, assistant_model=pair.draft, **_words(pair))
        found.append(DecodeContender(ASSISTED, assisted))
        by_model = f"model:path={pair.draft_name}"
        kinds["model"] = Sweep((by_model,), 0)
        kinds["suffix+model"] = Sweep(("suffix", by_model), 0)
    kinds = {label: kind for label, kind in kinds.items() if _exist(kind.drafters)}
    found += [_paceline(pair.llm, PLAIN, None), _paceline(pair.llm, PLAIN_AGAIN, None)]
    return found + [
        _paceline(pair.llm, f"paceline {label}, budget {budget}", replace(kind, budget=budget))
        for label, kind in kinds.items()
        for budget in budgets
    ]


def _words(pair: Pair) -> dict[str, Any]:
    """The tokenizers, which transformers wants where the draft model has another vocabulary."""
    if pair.draft.config.vocab_size == pair.model.config.vocab_size or pair.llm.tokenizer is None:
        return {}
    return {
        "tokenizer": pair.llm.tokenizer.inner,
        "assistant_tokenizer": AutoTokenizer.from_pretrained(pair.draft_name),
    }


def _paceline(llm: LLM, name: str, sweep: Sweep | None) -> DecodeContender:
    drafters = sweep.drafters if sweep else ()

    def run(job: DecodeWork) -> Result:
        output = llm.generate(
            list(job.ids),
            drafters=list(drafters),
            tenant=fresh_tenant(),  # nobody else keeps anything of an earlier turn either
            pacer=FixedPacer(sweep.budget if sweep else 0),
            max_tokens=job.max_tokens,
            temperature=job.temperature,
            seed=job.seed,
            ignore_eos=True,
        )
        return output.token_ids, output.stats.as_dict()

    return DecodeContender(name, run, True, sweep)


def _exist(specs: Sequence[str]) -> bool:
    """Whether there are drafters of these names."""
    return {spec.partition(":")[0] for spec in specs} <= available().keys()


def transformers_run(model: Any, **how: Any) -> Callable[[DecodeWork], Result]:
    """Transformers' `generate` in one of its ways, which stops at no end of sequence."""

    def run(job: DecodeWork) -> Result:
        ids = torch.tensor([job.ids], device=model.device)
        torch.manual_seed(job.seed)
        config = GenerationConfig(
            max_new_tokens=job.max_tokens,
            pad_token_id=0,
            use_cache=True,
            **_sampling(job.temperature),
        )
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config, **how)
        return tuple(out[0, len(job.ids) :].tolist()), None

    return run


def _sampling(temperature: float) -> dict[str, Any]:
    """Greedy, or the whole distribution at a temperature, which transformers may cut by itself."""
    if temperature == 0.0:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
