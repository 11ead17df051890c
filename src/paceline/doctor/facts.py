"""What a diagnosis rests on: figures and settings, gathered from a loaded model and a visit."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from paceline.bundled import bundled_path
from paceline.doctor.costs import ForwardPace
from paceline.doctor.head_check import HeadFacts, check_head
from paceline.doctor.heads import HeadForecast, forecast, head_share
from paceline.doctor.machine import BUSY, num_cores
from paceline.doctor.visit import Visit
from paceline.engine.stats import DrafterStats
from paceline.llm import LLM


@dataclass(frozen=True)
class DrafterFacts:
    """What one drafter did in all replays."""

    num_proposals: int
    num_draft_tokens: int
    num_accepted: int
    seconds: float


@dataclass(frozen=True)
class DraftModel:
    """The draft model, if there is one."""

    name: str
    max_length: int | None = None  # tokens; None if its configuration does not say
    refusal: str | None = None  # why it cannot draft for this target


@dataclass(frozen=True)
class MachineLoad:
    """What others did on the machine during the visit, and what a forward took."""

    busy_elsewhere: float  # processors that they kept at work
    pace: ForwardPace

    @property
    def is_busy(self) -> bool:
        """Whether they are in the way."""
        return self.busy_elsewhere >= BUSY


@dataclass(frozen=True)
class Facts:
    """Everything that the checks look at."""

    path: str  # numeric path
    dtype: str
    device: str
    threads: int
    cores: int
    row_seconds: dict[int, float]  # of a forward, by rows
    host_share: float  # of a plain step
    longest: int  # tokens of the longest text
    quantisation: str | None = None  # the target's
    draft: DraftModel | None = None
    drafters: dict[str, DrafterFacts] = field(default_factory=dict)
    template_words: tuple[str, ...] = ()  # what the chat template puts into every conversation
    num_prompts: int = 0
    num_templated: int = 0  # prompts with such words
    load: MachineLoad | None = None
    speedup: float = 1.0  # that is predicted with these drafters
    head: HeadFacts | None = None  # that is there
    forecast: HeadForecast | None = None  # of one that is not


def gather(llm: LLM, visit: Visit, draft: DraftModel | None) -> Facts:
    """The facts of a visit."""
    numerics = llm.target.numerics()
    words = template_words(llm)
    prompts = [recording.question.prompt for recording in visit.recordings]
    lengths = [len(recording.ids) + len(recording.tokens) for recording in visit.recordings]
    cost = visit.costs.usual()
    return Facts(
        path=str(numerics["path"]),
        dtype=str(numerics.get("dtype", "")),
        device=str(numerics["device"]),
        threads=int(numerics.get("threads", 1)),
        cores=num_cores(),
        row_seconds={count: cost(count, max(lengths)) for count in visit.costs.counts},
        host_share=visit.prediction().host_share,
        longest=max(lengths),
        quantisation=_quantisation(llm),
        draft=draft,
        drafters=_drafters(visit),
        template_words=words,
        num_prompts=len(prompts),
        num_templated=sum(any(word in prompt for word in words) for prompt in prompts),
        load=MachineLoad(visit.busy_elsewhere, visit.pace),
        speedup=visit.prediction().speedup.value,
        head=(head := check_head(llm, visit.recordings)),
        forecast=None if head is not None else _forecast(llm, visit),
    )


def _forecast(llm: LLM, visit: Visit) -> HeadForecast | None:
    """What a block head should bring on this text, where the target could host one."""
    host = llm.runtime.environment.host
    if host is None or llm.info is None:
        return None
    config = host.model.config.get_text_config()
    share = head_share(config.hidden_size, config.vocab_size, llm.info.num_parameters)
    return forecast(visit.recordings, visit.costs.usual(), share)


def draft_model(name: str, refusal: str | None = None) -> DraftModel:
    """What the configuration of a draft model says."""
    length = getattr(_config(name), "max_position_embeddings", None)
    return DraftModel(name, int(length) if length else None, refusal)


def template_words(llm: LLM) -> tuple[str, ...]:
    """Special tokens of the chat template; empty for a model without one."""
    inner = llm.tokenizer.inner if llm.tokenizer else None
    if inner is None or not inner.chat_template:
        return ()
    with suppress(Exception):  # a template that refuses this conversation says nothing about others
        text = inner.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
        return tuple(word for word in inner.get_added_vocab() if word in text and word != inner.bos_token)
    return ()


def _drafters(visit: Visit) -> dict[str, DrafterFacts]:
    found: dict[str, list[DrafterStats]] = {}
    for turn in visit.paced:
        for replayed in turn:
            for name, stats in replayed.stats.drafters.items():
                found.setdefault(name, []).append(stats)
    keys = ("num_proposals", "num_draft_tokens", "num_accepted_draft_tokens", "seconds")
    return {name: DrafterFacts(*(sum(getattr(s, key) for s in stats) for key in keys)) for name, stats in found.items()}


def _quantisation(llm: LLM) -> str | None:
    settings = getattr(_config(llm.info.name), "quantization_config", None) if llm.info else None
    if settings is None:
        return None
    method = settings.get("quant_method") if isinstance(settings, dict) else getattr(settings, "quant_method", None)
    return str(method or "an unnamed method")


def _config(name: str) -> Any:
    """A model's configuration, or None if it cannot be read by name."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(bundled_path(name) or name)
    except Exception:  # a model made in memory
        return None
