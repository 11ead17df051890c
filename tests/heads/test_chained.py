"""Heads that draft from hidden states: same bytes whatever they are, and what they read is the text's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, Qwen2Config, Qwen3MoeConfig

from contract.keeping import Watcher
from exactness.decoding import decode
from exactness.models import VOCAB
from exactness.subjects import Subject, job
from paceline.drafters import make
from paceline.engine.request import DraftLimits, Environment
from paceline.errors import ConfigError
from paceline.heads.dense import DenseStep, causal
from paceline.heads.eagle import Eagle1Head, Eagle3Head, EagleConfig
from paceline.heads.medusa import MedusaConfig, MedusaHead
from paceline.heads.mtp import MTPConfig, MTPHead
from paceline.model import head_forward
from paceline.model.interface import answered_by

WIDE, FEW = 64, VOCAB // 3
JOBS = [job(length, 5, 17, **options) for length, options in ((1, {}), (64, {"temperature": 0.9}), (140, {}))]
SIZES: dict[str, Any] = {
    "hidden_size": WIDE,
    "intermediate_size": 40,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": VOCAB,
    "max_position_embeddings": 640,
    "initializer_range": 0.2,
}

EXPERTS = {"num_hidden_layers": 1, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 9}


@pytest.fixture(scope="module")
def subject() -> Iterator[Subject]:
    made = Subject("llama")
    yield made
    made.llm.close()


def eagle3(**more: Any) -> Eagle3Head:
    fields = {"taps": (0, 1, 2), "target_hidden_size": WIDE, **more}
    return Eagle3Head(EagleConfig(LlamaConfig(**SIZES, num_hidden_layers=2), **fields), 3, False)


KINDS: dict[str, tuple[str, Any]] = {
    "eagle-3": ("eagle", eagle3),
    "eagle-3 with few tokens": ("eagle", lambda: eagle3(draft_vocab_size=FEW, tap_norm="each", norm_output=True)),
    "p-eagle": ("eagle", lambda: eagle3(mask_token_id=3)),
    "eagle-1": (
        "eagle",
        lambda: Eagle1Head(EagleConfig(LlamaConfig(**SIZES, num_hidden_layers=1), (-1,), WIDE), True, True),
    ),
    "mtp": ("mtp", lambda: MTPHead(MTPConfig(Qwen2Config(**SIZES, num_hidden_layers=1), is_hidden_first=True))),
    "mtp with experts": ("mtp", lambda: MTPHead(MTPConfig(Qwen3MoeConfig(**SIZES, **EXPERTS)))),
    "medusa": ("medusa", lambda: MedusaHead(MedusaConfig(4, 1, WIDE, VOCAB))),
    "medusa without heads": ("medusa", lambda: MedusaHead(MedusaConfig(3, 2, WIDE, 0, has_own_logits=False))),
}

BY_MODULES = ("eagle-3 with few tokens", "p-eagle", "medusa")


def drawn(kind: str, seed: int = 0) -> tuple[str, Any]:
    """A head of random weights, and the name of its drafter."""
    name, make_head = KINDS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = make_head()
        for weight in head.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.3)
        if head.config.num_logits == FEW:
            head.d2t = torch.randperm(VOCAB)[:FEW].sort().values
    return name, head.eval().requires_grad_(False)


class Hosted(Watcher):
    """Checks what passes through the port: limits, scores, names, and who is told of what."""

    reads_hidden_states = True


def attached(subject: Subject, name: str, head: Any, **options: Any) -> Any:
    drafter: Any = make(name, path="given", probe=False, **options)
    host = subject.target.host
    head.bind(host.model)
    drafter._run(head, Environment(None, VOCAB, "cpu", host=host))
    return drafter


@pytest.mark.parametrize(
    ("kind", "path"), [*((kind, "native") for kind in KINDS), *((k, "modules") for k in BY_MODULES)]
)
def test_no_byte_depends_on_a_head(subject: Subject, kind: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if path == "modules":
        monkeypatch.setattr(head_forward, "library", lambda: None)
    drafter = Hosted(attached(subject, *drawn(kind)))
    for num_rows in (9 * len(JOBS), 3 * len(JOBS)):  # the second time, pages of prompts are found again
        found = decode(subject.target, JOBS, drafter, num_rows)  # type: ignore[arg-type]
        assert subject.plain.differences(JOBS, found) == []
    assert drafter.num_proposed > 60
    assert not drafter.open
    assert not getattr(drafter.inner, "_followed", None)


def spoil(head: Any, fault: str) -> None:
    """Plant what befalls published heads."""
    weights = [weight for name, weight in head.named_parameters() if not name.startswith(("embed_tokens", "lm_head"))]
    if fault == "nan":
        for weight in weights:
            weight.fill_(float("nan"))
    if fault == "half":
        for weight in weights[::2]:
            weight.zero_()
    if fault == "infinite":
        weights[0].view(-1)[0] = float("inf")
    if fault == "vocabulary":
        head.d2t = torch.randint(VOCAB, (head.config.num_logits or VOCAB,))


@pytest.mark.parametrize("fault", ["nan", "half", "vocabulary"])
@pytest.mark.parametrize("kind", ["eagle-3 with few tokens", "p-eagle", "mtp", "medusa"])
def test_a_spoilt_head_changes_nothing(subject: Subject, kind: str, fault: str) -> None:
    name, head = drawn(kind)
    spoil(head, fault)
    found = decode(subject.target, JOBS, attached(subject, name, head), 6 * len(JOBS))
    assert subject.plain.differences(JOBS, found) == []


@pytest.mark.parametrize("kind", ["eagle-3 with few tokens", "eagle-1", "mtp"])
@pytest.mark.parametrize("path", ["native", "modules"])
def test_a_draft_is_what_the_texts_own_hidden_states_make(
    subject: Subject, kind: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Greedy chains, whatever was drafted, accepted and moved before: as worked out from the whole text."""
    if path == "modules":
        monkeypatch.setattr(head_forward, "library", lambda: None)
    drafter = attached(subject, *drawn(kind), width=1, branch=1, depth=3)
    _, head = drawn(kind)
    head.bind(subject.model)
    seen = 0

    def compare(engine: Any) -> None:
        nonlocal seen
        for request in engine.scheduler.decoding:
            if seen < 40 and request.params.is_greedy and len(request.tokens) > 2:
                (tree,) = drafter.propose([request], [DraftLimits(3)])
                assert list(tree.tokens) == chain(subject, head, request.tokens, len(tree))
                seen += len(tree)

    decode(subject.target, JOBS, drafter, 5 * len(JOBS), on_step=compare)
    assert seen > 35


@torch.inference_mode()
def chain(subject: Subject, head: Any, tokens: list[int], length: int) -> list[int]:
    """What the head says behind a text, from the caller's own model, row by row anew for each token."""
    out = subject.model(input_ids=torch.tensor([tokens[:-1]]), output_hidden_states=True, use_cache=False)
    depth = subject.model.config.num_hidden_layers
    streams = [*out.hidden_states[:depth], None, out.hidden_states[depth]]  # the last one is normed
    streams[depth] = last_stream(subject, tokens[:-1])
    states = head.states([streams[tap] for tap in head.config.taps])
    said: list[int] = []
    for _ in range(length):
        fed = torch.tensor([[*tokens[1:], *said]])
        places = torch.arange(fed.shape[1])
        with answered_by(DenseStep(causal(torch.zeros_like(places), places))):
            after, logits = head(fed, states, places[None])
        best = int(logits[0, -1].argmax())
        said.append(best if head.d2t is None else int(head.d2t[best]))
        states = torch.cat([states, after[:, -1:]], 1)
    return said


def last_stream(subject: Subject, tokens: list[int]) -> torch.Tensor:
    kept: list[torch.Tensor] = []
    hook = subject.model.model.layers[-1].register_forward_hook(lambda m, a, out: kept.append(out))
    subject.model(input_ids=torch.tensor([tokens]), use_cache=False)
    hook.remove()
    return kept[0]


def test_a_drafter_without_a_head_says_what_it_needs(subject: Subject) -> None:
    for name in ("eagle", "mtp", "medusa"):
        drafter: Any = make(name)
        with pytest.raises(ConfigError, match=f"{name}: path is ''; allowed: a folder with a head"):
            drafter.attach(Environment(None, VOCAB, "cpu", host=subject.target.host))
        with pytest.raises(ConfigError, match="shows no head its hidden states"):
            drafter.attach(Environment(None, VOCAB, "cpu"))
