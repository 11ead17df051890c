"""The probe finds what a head's files mean, whatever they say, and refuses what fits in no reading."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, Qwen2Config, Qwen3Config

from heads.trained import fit, plain
from heads.writers import SIZES, VOCAB, WIDE
from paceline.errors import ModelError
from paceline.heads import probe as probing
from paceline.heads.block import BlockHead
from paceline.heads.chained import ChainedHead
from paceline.heads.config import BlockConfig
from paceline.heads.eagle import Eagle1Head, Eagle3Head, EagleConfig
from paceline.heads.medusa import MedusaConfig, MedusaHead
from paceline.heads.mtp import MTPConfig, MTPHead
from paceline.heads.overlap import overlaps
from paceline.heads.probe import Fit, probe
from paceline.heads.readings import Readings
from paceline.heads.seen import Seen, look
from paceline.model.loading import load_target

PROMPTS = [[(7 * i + 3 * j) % VOCAB for j in range(5)] for i in range(4)]
TAPS = (1, 2, 3)


@pytest.fixture(scope="module")
def seen(target: LlamaForCausalLM) -> Seen:
    loaded, _ = load_target(copy.deepcopy(target), cache_tokens=1024)
    return plain(look(loaded.decoder, PROMPTS, range(6), loaded.max_length - 1))


def layers(kind: type, **more: Any) -> Any:
    return kind(**SIZES, num_hidden_layers=1, **more)


def eagle(target: LlamaForCausalLM, has_embedding: bool = False, **reading: Any) -> Eagle3Head:
    torch.manual_seed(0)
    config = EagleConfig(layers(type(target.config)), reading.pop("taps", TAPS), WIDE, **reading)
    head = Eagle3Head(config, len(config.taps), has_embedding)
    head.bind(target)
    return head


def eagle1(target: LlamaForCausalLM, **reading: Any) -> Eagle1Head:
    torch.manual_seed(0)
    head = Eagle1Head(EagleConfig(layers(type(target.config)), target_hidden_size=WIDE, **reading), True, False)
    head.bind(target)
    return head


def mtp(target: LlamaForCausalLM, **reading: Any) -> MTPHead:
    torch.manual_seed(0)
    head = MTPHead(MTPConfig(layers(Qwen2Config), **reading))
    head.bind(target)
    return head


def medusa(target: LlamaForCausalLM, **reading: Any) -> MedusaHead:
    torch.manual_seed(0)
    head = MedusaHead(MedusaConfig(3, 1, WIDE, VOCAB, **reading))
    head.bind(target)
    return head


def block(target: LlamaForCausalLM, **reading: Any) -> BlockHead:
    torch.manual_seed(0)
    fields = {"taps": TAPS, "block_size": 4, "mask_token_id": 3, "rank": 4, **reading}
    head = BlockHead(BlockConfig(layers(Qwen3Config), target_hidden_size=WIDE, **fields))
    head.bind(target)
    return head


MAKERS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "eagle-3": (eagle, {"norm_before_residual": True}),
    "eagle-3.1": (eagle, {"norm_output": True, "tap_norm": "each", "taps": (1, 2, 5)}),
    "eagle-1": (eagle1, {"taps": (5,)}),
    "p-eagle": (eagle, {"mask_token_id": 3, "norm_before_residual": True}),
    "mtp": (mtp, {"is_hidden_first": True}),
    "medusa": (medusa, {"taps": (4,)}),
    "dspark": (block, {"is_causal": True}),
    "dflash": (block, {"predicts_from_anchor": False, "rank": 16}),
}
LIES: list[tuple[str, dict[str, Any]]] = [
    ("eagle-3", {"taps": (0, 1, 2)}),
    ("eagle-3", {"taps": (2, 3, 4), "norm_before_residual": False}),
    ("eagle-3", {"norm_before_residual": False}),
    ("eagle-3", {"norm_logits": False}),
    ("eagle-3.1", {"taps": (1, 2, 4)}),  # the last one is behind the final norm
    ("eagle-3.1", {"norm_output": False}),
    ("eagle-1", {"taps": (4,)}),
    ("p-eagle", {"norm_before_residual": False, "taps": (2, 3, 4)}),
    ("mtp", {"is_hidden_first": False}),
    ("mtp", {"taps": (4,), "is_hidden_first": False}),
    ("medusa", {"taps": (5,)}),
    ("dspark", {"is_causal": False}),
    ("dspark", {"predicts_from_anchor": False, "taps": (0, 1, 2)}),
    ("dflash", {"predicts_from_anchor": True}),  # EAGLE's shift
    ("dflash", {"taps": (2, 3, 4)}),
]


@pytest.fixture(scope="module")
def trained(target: LlamaForCausalLM, seen: Seen) -> Callable[[str], Any]:
    """A head of each kind that fits, made when it is first asked for."""
    made: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in made:
            make, reading = MAKERS[name]
            made[name] = make(target, **reading)
            fit(made[name], seen)
        return made[name]

    return get


def probed(head: Any, target: LlamaForCausalLM, seen: Seen, name: str, **more: Any) -> Fit:
    readings = Readings(head, target, more.pop("vocabularies", ()), more.pop("brought", ()))
    return probe(readings, lambda: seen, {"head": name, "target": "tiny"})


@pytest.mark.parametrize(("name", "lie"), LIES, ids=[f"{name}-{'-'.join(lie)}" for name, lie in LIES])
def test_a_lie_in_the_configuration_is_found_out(
    name: str, lie: dict[str, Any], trained: Any, target: LlamaForCausalLM, seen: Seen
) -> None:
    head = trained(name)
    truth = head.config
    best = overlaps(head, seen)
    head.config = replace(truth, **lie)
    try:
        found = probed(head, target, seen, f"{name} {lie}")
        assert {field: getattr(head.config, field) for field in lie} == {field: getattr(truth, field) for field in lie}
        assert found.first == pytest.approx(best.first)
        assert found.first > 0.35
    finally:
        head.config = truth


def test_what_was_found_is_kept(trained: Any, target: LlamaForCausalLM, seen: Seen) -> None:
    head = trained("eagle-3")
    truth = head.config
    head.config = replace(truth, norm_before_residual=False)
    first = probed(head, target, seen, "kept")
    head.config = replace(truth, norm_before_residual=False)

    def never() -> Seen:
        raise AssertionError("it was tried again")

    again = probe(Readings(head, target, (), ()), never, {"head": "kept", "target": "tiny"})
    assert again == first
    assert head.config == truth
    with pytest.raises(AssertionError, match="tried again"):
        probe(Readings(head, target, (), ()), never, {"head": "kept", "target": "another"})


def test_an_embedding_that_was_never_loaded_gives_way_to_the_targets(target: LlamaForCausalLM, seen: Seen) -> None:
    head = eagle(target, has_embedding=True)
    own = head.embed_tokens
    head.embed_tokens = target.get_input_embeddings()
    fit(head, seen)
    head.embed_tokens = own  # random
    worse = overlaps(head, seen)
    found = probed(head, target, seen, "embedding", brought=["embed_tokens"])
    assert found.reading["embed_tokens"] == "target's"
    assert found.first > worse.first + 0.1
    assert head.embed_tokens is target.get_input_embeddings()


def test_of_two_vocabularies_the_one_that_fits_is_found(target: LlamaForCausalLM, seen: Seen) -> None:
    counts = torch.bincount(seen.tokens, minlength=VOCAB)[:36]
    kept = counts.topk(12).indices.sort().values  # so low that i + kept[i] is a token too
    head = eagle(target, draft_vocab_size=12)
    head.d2t = kept
    fit(head, replace(seen, logits=seen.logits[:, kept]))
    vocabularies = (torch.arange(12) + kept, kept)
    head.d2t = vocabularies[0]
    readings = Readings(head, target, vocabularies, ())
    found, _ = probing._search(readings, seen)
    assert found.reading["vocabulary"] == 1
    assert head.d2t is kept


@pytest.mark.parametrize(("label", "cause"), [(-1, "that it is given"), (1, "behind the one that is wanted")])
def test_labels_that_were_one_off_are_named(label: int, cause: str, target: LlamaForCausalLM, seen: Seen) -> None:
    head = medusa(target) if label > 0 else mtp(target)
    fit(head, seen, 80, label)
    with pytest.raises(ModelError, match=f"It says the token {cause}"):
        probed(head, target, seen, f"label {label}")


@pytest.mark.parametrize("fault", ["random", "nan", "half"])
def test_what_fits_in_no_reading_is_refused_with_the_likely_causes(
    fault: str, trained: Any, target: LlamaForCausalLM, seen: Seen
) -> None:
    head = eagle(target) if fault == "random" else copy.deepcopy(trained("eagle-3"))
    weights = [p for n, p in head.named_parameters() if not n.startswith("embed_tokens")]
    for weight in weights if fault == "nan" else weights[: len(weights) // 2] if fault == "half" else []:
        weight.fill_(float("nan") if fault == "nan" else 0.0)
    with pytest.raises(ModelError, match=r"foresees \d+% of what this target says; allowed: 20%.*another tokenizer"):
        probed(head, target, seen, fault)


class _Cheat(ChainedHead):
    """Says what the target will say: it looks it up by the rows that it is asked for."""

    kind = "eagle"

    def __init__(self, seen: Seen, target: LlamaForCausalLM) -> None:
        super().__init__(EagleConfig(layers(type(target.config)), TAPS, WIDE))
        self._answers = [seen.logits[seen.ahead(2) + 1], seen.logits[seen.ahead(3) + 2]]

    def states(self, taps: Any) -> torch.Tensor:
        return torch.as_tensor(taps[0])

    def forward(self, tokens: Any, states: Any, positions: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return states, self._answers.pop(0)[None]


class _CheatingMedusa(MedusaHead):
    def answer(self, seen: Seen) -> None:
        self._answers = [seen.logits[seen.ahead(3) + 1 + i][None] for i in range(2)]

    def forward(self, states: torch.Tensor) -> list[torch.Tensor]:
        return self._answers


class _CheatingBlock(BlockHead):
    def answer(self, seen: Seen) -> None:
        self._seen = seen

    def context(self, taps: Any, positions: Any) -> list[Any]:
        return []

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        size, first = self.config.block_size, self.config.first_slot
        anchors = self._seen.ahead(2)
        anchors = anchors[self._seen.positions[anchors] > 0]
        anchors = anchors[:: -(-len(anchors) // (tokens.numel() // size))]
        rows = (anchors[:, None] + torch.arange(size) - first).clamp(0, len(self._seen.tokens) - 1)
        return torch.zeros(1, tokens.numel(), WIDE), self._seen.logits[rows].view(1, tokens.numel(), -1)


@pytest.mark.parametrize("kind", ["chain", "medusa", "anchor", "no anchor"])
def test_a_head_that_cheats_overlaps_wholly(kind: str, target: LlamaForCausalLM, seen: Seen) -> None:
    head: Any = _Cheat(seen, target)
    if kind == "medusa":
        head = _CheatingMedusa(MedusaConfig(2, 1, WIDE, VOCAB, taps=(5,)))
        head.answer(seen)
    if "anchor" in kind:
        fields = {"taps": TAPS, "block_size": 3, "mask_token_id": 3, "predicts_from_anchor": kind == "anchor"}
        head = _CheatingBlock(BlockConfig(layers(Qwen3Config), target_hidden_size=WIDE, **fields))
        head.answer(seen)
    found = overlaps(head, seen)
    assert found.first == pytest.approx(1.0, abs=1e-5)
    assert found.second == pytest.approx(1.0, abs=1e-5)
    assert max(found.shifted) < 0.9


def test_a_target_goes_on_as_it_would(target: LlamaForCausalLM, seen: Seen) -> None:
    """Texts without temperature are the target's likeliest; taps and logits are those of its own modules."""
    assert len(seen.tokens) == 4 * 49
    assert int(seen.is_said.sum()) == 4 * 44
    for text in range(0, 4, 2):
        rows = (seen.texts == text).nonzero().flatten()
        with torch.inference_mode():
            out = target(seen.tokens[rows][None], output_hidden_states=True)
        torch.testing.assert_close(seen.logits[rows], out.logits[0], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(seen.taps[2][rows], out.hidden_states[2][0], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(seen.taps[5][rows], out.hidden_states[4][0], rtol=1e-3, atol=1e-3)
        said = rows[seen.is_said[rows]]
        assert torch.equal(seen.logits[said - 1].argmax(-1), seen.tokens[said])


def test_prompts_may_be_longer_than_a_page(target: LlamaForCausalLM) -> None:
    loaded, _ = load_target(copy.deepcopy(target), cache_tokens=1024)
    prompts = [[(5 * i) % VOCAB for i in range(100)], [3, 4]]
    seen = look(loaded.decoder, prompts, [1], loaded.max_length - 1)
    assert torch.bincount(seen.texts).tolist() == [84 + 44, 2 + 44]
    rows = (seen.texts == 0).nonzero().flatten()
    with torch.inference_mode():
        out = target(seen.tokens[rows][None], output_hidden_states=True)
    torch.testing.assert_close(seen.logits[rows], out.logits[0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(seen.taps[1][rows], out.hidden_states[1][0], rtol=1e-3, atol=1e-3)
