"""Heads made and saved by their writers' own code load here, and give that code's logits.

Skipped where it is not installed: `pip install --no-deps speculators hs-connectors specforge dflash loguru`.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen3Config

from heads.reference import HEAD_SIZE
from heads.test_formats import close
from heads.test_mtp import COMMON, FAMILIES
from heads.writers import SIZES, VOCAB, WIDE, Drawn
from paceline.heads.dense import DenseStep, causal
from paceline.heads.formats import open_head
from paceline.model.interface import answered_by

pytestmark = pytest.mark.filterwarnings("ignore")
ROWS, MASK = 12, 7
PLACES = torch.arange(ROWS)
KEPT = Drawn(3).kept(20)


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory, target: LlamaForCausalLM) -> Path:
    folder = tmp_path_factory.mktemp("verifier")
    target.save_pretrained(folder)
    return folder


def randomized(model: Any) -> Any:
    """All that is the head's own drawn at random."""
    shared = ("verifier_", "embed_tokens", *(() if getattr(model, "use_draft_vocab", True) else ("lm_head",)))
    drawn = Drawn(1)
    for name, weight in model.named_parameters():
        if not name.startswith(shared):
            weight.data = drawn.norm(len(weight)) if "norm" in name else drawn.matrix(*weight.shape)
    return model.eval().requires_grad_(False)


def layers(kind: type, count: int, **more: Any) -> Any:
    config = kind(**SIZES, num_hidden_layers=count, **more)
    config._attn_implementation = "eager"
    return config


def outputs(part: torch.nn.Module, call: Callable[[], Any]) -> torch.Tensor:
    """What a part says while its model runs; the loss behind it may need what is not there."""
    kept: list[torch.Tensor] = []
    hook = part.register_forward_hook(lambda module, given, out: kept.append(out.clone()))
    with torch.no_grad(), contextlib.suppress(RuntimeError):
        call()
    hook.remove()
    return kept[0][0]


def chained(head: Any, taps: list[torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
    step = DenseStep(causal(torch.zeros_like(PLACES), PLACES))
    with torch.inference_mode(), answered_by(step):
        states, logits = head(tokens[None], head.states([tap[None] for tap in taps]), PLACES[None])
    return torch.cat([logits[0], states[0]], -1)


def block(head: Any, taps: list[torch.Tensor], anchor: int, pending: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states and logits of a block at an anchor."""
    places = torch.arange(anchor, anchor + head.config.block_size)
    tokens = torch.full_like(places, MASK)
    tokens[0] = pending
    own = places[:, None] - places
    own = own if head.config.is_causal else own.clamp(min=0)
    distances = torch.cat([places[:, None] - PLACES[:anchor], own], 1)
    with torch.inference_mode():
        context = head.context([tap[None, :anchor] for tap in taps], PLACES[None, :anchor])
        with answered_by(DenseStep(distances, context)):
            hidden, logits = head(tokens[None], places[None])
    return hidden[0], logits[0]


def given(count: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    drawn = Drawn(2)
    return [drawn.matrix(ROWS, WIDE) * 3 for _ in range(count)], drawn.tokens(ROWS)


def speculators_config(algorithm: str, verifier: Path) -> Any:
    from speculators.config import SpeculatorsConfig, VerifierConfig
    from speculators.proposals.greedy import GreedyTokenProposalConfig

    return SpeculatorsConfig(
        algorithm=algorithm,
        proposal_methods=[GreedyTokenProposalConfig(speculative_tokens=3)],
        default_proposal_method="greedy",
        verifier=VerifierConfig.from_pretrained(str(verifier)),
    )


def saved(model: Any, folder: Path, is_cut: bool) -> Path:
    """A model of speculators', filled and written."""
    if is_cut:
        model.load_vocab_mappings(torch.isin(torch.arange(VOCAB), KEPT), KEPT - torch.arange(len(KEPT)))
    model.load_verifier_weights()
    randomized(model).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", [LlamaConfig, Qwen3Config])
@pytest.mark.parametrize("how", [{"norm_before_residual": True}, {"fc_norm": True}, {"norm_before_fc": True}])
def test_eagle3_of_speculators(
    how: dict[str, bool], kind: type, tmp_path: Path, verifier: Path, target: LlamaForCausalLM
) -> None:
    core = pytest.importorskip("speculators.models.eagle3.core")
    from speculators.models.eagle3 import Eagle3SpeculatorConfig

    config = Eagle3SpeculatorConfig(
        transformer_layer_config=layers(kind, 2),
        draft_vocab_size=len(KEPT),
        eagle_aux_hidden_state_layer_ids=[1, 2, 3],
        speculators_config=speculators_config("eagle3", verifier),
        norm_output=True,
        **how,
    )
    model, (taps, tokens) = core.Eagle3DraftModel(config), given(3)
    head = open_head(saved(model, tmp_path, is_cut=True)).module
    head.bind(target)
    where = {"position_ids": PLACES[None].clone(), "ttt_steps": 1}
    documents = torch.zeros(1, ROWS, dtype=torch.int64)
    theirs = outputs(model.lm_head, lambda: model(torch.cat(taps, -1)[None], tokens[None], documents, **where))
    close(chained(head, taps, tokens)[:, : len(KEPT)], theirs)
    assert torch.equal(head.d2t, KEPT)


def test_peagle_of_speculators(tmp_path: Path, verifier: Path, target: LlamaForCausalLM) -> None:
    """A rollout of masks behind a true row is a chain that sees the text and itself."""
    core = pytest.importorskip("speculators.models.peagle.core")
    from speculators.models.peagle import PEagleSpeculatorConfig

    config = PEagleSpeculatorConfig(
        transformer_layer_config=layers(LlamaConfig, 3),
        draft_vocab_size=len(KEPT),
        eagle_aux_hidden_state_layer_ids=[1, 2, 3],
        mask_token_id=MASK,
        speculators_config=speculators_config("peagle", verifier),
    )
    model, (taps, tokens) = core.PEagleDraftModel(config), given(3)
    head = open_head(saved(model, tmp_path, is_cut=True)).module
    head.bind(target)
    documents, how = torch.zeros(1, ROWS, dtype=torch.int64), {"num_depths": 3, "down_sample_ratio": 1.0}
    how |= {"loss_mask": torch.ones(1, ROWS), "verifier_last_hidden_states": torch.randn(1, ROWS, WIDE)}
    how |= {"down_sample_ratio_min": 1.0}
    flat = torch.cat(taps, -1)[None], tokens[None], documents
    theirs = outputs(model.lm_head, lambda: model(*flat, **how))  # rows of all anchors and depths, in their own order
    last = ROWS - 3
    fed = torch.cat([tokens[: last + 1], torch.tensor([MASK, MASK])])
    places = torch.arange(last + 3)
    with torch.inference_mode(), answered_by(DenseStep(causal(torch.zeros_like(places), places))):
        true = head.states([tap[None, : last + 1] for tap in taps])
        _, logits = head(fed[None], torch.cat([true, head.mask_state().expand(1, 2, -1)], 1), places[None])
    for row in logits[0, last:]:
        assert float((theirs - row).abs().amax(-1).min()) < 1e-4


@pytest.mark.parametrize("kind", ["qwen3", "qwen3_next", "qwen3_5_text"])
def test_mtp_of_speculators(kind: str, tmp_path: Path) -> None:
    core = pytest.importorskip("speculators.models.mtp.core")
    from speculators.models.mtp import MTPSpeculatorConfig

    more = {"qwen3": {"head_dim": HEAD_SIZE}}.get(kind) or FAMILIES[kind.removesuffix("_text")][1]
    config = AutoConfig.for_model(kind, **{**COMMON, **more})
    config._attn_implementation = "eager"
    target = AutoModelForCausalLM.from_config(copy.deepcopy(config)).eval().requires_grad_(False)
    target.save_pretrained(tmp_path / "target")
    about = speculators_config("mtp", tmp_path / "target")
    model = core.MTPDraftModel(MTPSpeculatorConfig(transformer_layer_config=config, speculators_config=about))
    model.use_draft_vocab = False  # as its lm_head is the target's
    folder, tokens, hidden = (
        saved(model, tmp_path / "head", is_cut=False),
        Drawn(2).tokens(ROWS),
        torch.randn(ROWS, WIDE),
    )
    theirs = outputs(model.lm_head, lambda: model(tokens[None], hidden[None]))
    head, places = open_head(folder).module, torch.arange(len(theirs))
    head.bind(target)
    with torch.inference_mode(), answered_by(DenseStep(causal(torch.zeros_like(places), places))):
        _, logits = head(tokens[None, 1 : len(places) + 1], hidden[None, : len(places)], places[None])
    close(logits[0], theirs)


@pytest.mark.parametrize("is_sliding", [False, True])
@pytest.mark.parametrize("name", ["dflash", "dspark"])
def test_blocks_of_speculators(
    name: str, is_sliding: bool, tmp_path: Path, verifier: Path, target: LlamaForCausalLM
) -> None:
    models = pytest.importorskip("speculators.models")
    from speculators.models import dflash, dspark

    kinds = {"dflash": (dflash.DFlashSpeculatorConfig, models.dflash.core.DFlashDraftModel)}
    kinds["dspark"] = (dspark.DSparkSpeculatorConfig, models.dspark.core.DSparkDraftModel)
    slide = {"layer_types": ["sliding_attention"] * 2, "sliding_window": 64, "use_sliding_window": True}
    make_config, make = kinds[name]
    config = make_config(
        transformer_layer_config=layers(Qwen3Config, 2, **(slide if is_sliding else {})),
        draft_vocab_size=len(KEPT) if is_sliding else VOCAB,
        block_size=4,
        aux_hidden_state_layer_ids=[1, 3],
        mask_token_id=MASK,
        speculators_config=speculators_config(name, verifier),
        **({"markov_rank": 6, "markov_head_type": "gated"} if name == "dspark" else {}),
    )
    model, (taps, tokens) = make(config), given(2)
    found = open_head(saved(model, tmp_path, is_cut=is_sliding))
    found.module.bind(target)
    chosen: list[Any] = []
    backbone = model._backbone_forward
    model._backbone_forward = lambda *a, **k: chosen.append(backbone(*a, **k)) or chosen[-1]
    flat = torch.cat(taps, -1)[None], tokens[None], torch.ones(1, ROWS), torch.randn(1, ROWS, WIDE)
    outputs(model.lm_head, lambda: model(*flat, torch.zeros(1, ROWS, dtype=torch.int64), max_anchors=3))
    _, logits, _, _, places = chosen[0]
    for theirs, anchor in zip(logits.view(3, 4, -1), places.view(3, 4)[:, 0].tolist(), strict=True):
        if anchor:
            close(block(found.module, taps, anchor, int(tokens[anchor]))[1], theirs)
    assert found.module.config.is_causal == is_sliding


@pytest.mark.parametrize("how", [{}, {"fc_norm": True}, {"norm_output": False}])
def test_eagle3_of_specforge(how: dict[str, bool], tmp_path: Path, target: LlamaForCausalLM) -> None:
    llama3_eagle = pytest.importorskip("specforge.modeling.draft.llama3_eagle")
    ids = {"eagle_aux_hidden_state_layer_ids": [0, 1, 2], "use_aux_hidden_state": True}
    more = {"draft_vocab_size": len(KEPT), "pad_token_id": 0, "eagle_config": ids, **how}
    config = LlamaConfig(**SIZES, num_hidden_layers=1, architectures=["LlamaForCausalLMEagle3"], **more)
    model, (taps, tokens) = randomized(llama3_eagle.LlamaForCausalLMEagle3(config)), given(3)
    model.d2t = KEPT - torch.arange(len(KEPT))
    model.t2d = torch.isin(torch.arange(VOCAB), KEPT)
    model.save_pretrained(tmp_path)
    mask = torch.full((1, 1, ROWS, ROWS), torch.finfo(torch.float32).min).triu(1)
    with torch.no_grad():
        mixed = model.project_hidden_states(torch.cat(taps, -1)[None])
        states = model.backbone(model.embed_input_ids(tokens[None]), mixed, [[], []], mask, PLACES[None])
        theirs = torch.cat([model.compute_logits(states), states], -1)[0]
    head = open_head(tmp_path).module
    head.bind(target)
    # What the trial would find: its `norm_output` is about logits, and drafts go on with what is before the norm.
    head.config = replace(head.config, norm_output=False, norm_logits=how.get("norm_output", True))
    assert head.config.taps == (1, 2, 3)
    close(chained(head, taps, tokens), theirs)


@pytest.mark.parametrize(("ids", "taps_meant"), [([-1, 2], (0, 3)), (None, (2, 2))])
def test_dflash_of_its_authors(
    ids: list[int] | None, taps_meant: tuple[int, ...], tmp_path: Path, target: LlamaForCausalLM
) -> None:
    authors = pytest.importorskip("dflash.model")
    config = Qwen3Config(**SIZES, num_hidden_layers=2, num_target_layers=4, block_size=4)
    config._attn_implementation, config.architectures = "sdpa", ["DFlashDraftModel"]
    config.dflash_config = {"mask_token_id": MASK, **({} if ids is None else {"target_layer_ids": ids})}
    model, (taps, _) = randomized(authors.DFlashDraftModel(config)), given(2)
    model.save_pretrained(tmp_path)
    tokens = torch.full((4,), MASK)
    tokens[0] = 9
    fed = {"noise_embedding": target.get_input_embeddings()(tokens)[None], "target_hidden": torch.cat(taps, -1)[None]}
    with torch.no_grad():
        theirs = model(position_ids=torch.arange(ROWS + 4)[None], **fed)[0]
    head = open_head(tmp_path).module
    head.bind(target)
    assert head.config.taps == taps_meant
    close(block(head, taps, ROWS, 9)[0], theirs)
