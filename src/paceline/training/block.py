"""A block head in training: its forward over many anchors of packed text, its loss, and what it would have accepted."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from paceline.errors import ModelError
from paceline.heads.block import BlockHead
from paceline.heads.formats.speculators_dspark import Verifier, write_head
from paceline.model.interface import answered_by
from paceline.training import anchors, losses
from paceline.training.aiming import aim
from paceline.training.anchors import Anchors
from paceline.training.attending import PackedBlocks
from paceline.training.data import Document
from paceline.training.features import Features
from paceline.training.packing import Packed, pack
from paceline.training.projecting import log_candidates
from paceline.training.recipe import Recipe, block_config
from paceline.training.warming import warm_up

_FIRST = 3  # slots of a short block
_SHOWN = 64  # documents that a fresh head is shown
_QUIET = 0.7  # of the target's final norm: logits that say nothing yet should be small
_CONVENTIONS = ("taps", "mask_token_id", "predicts_from_anchor", "is_causal", "transition", "draft_vocab_size")
_OF_LAYERS = ("model_type", "rms_norm_eps", "rope_parameters")
COLDEST = 0.5  # the temperature at which greedy text is trained on: colder, and the gradient is that of few rows


Lesson = tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]  # taps, the target's law, its likeliest tokens


class BlockTrainee:
    """See `loop.Trainee`.

    A draft ends at its first wrong token, so the first slots matter most. In short steps these alone are trained, of
    more blocks at the same cost.
    """

    def __init__(self, target: PreTrainedModel, recipe: Recipe, name: str = "") -> None:
        self.recipe, self.depth = recipe, recipe.block_size
        self._target, self._about = target, Verifier.of(target, name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.module = self.head = BlockHead(block_config(recipe, target))
            _initialise(self.head, target)
        self._features = Features(target, recipe.taps)
        self._last: tuple[Packed, Lesson] | None = None
        self._table = target.get_output_embeddings().weight.detach()
        self.head.lm_head = nn.Identity()  # logits are computed here, once for the head and its transition
        self.head.bind(target)
        self.head.to(target.device).train()
        for weight in self.head.embed_tokens.parameters():  # type: ignore[union-attr]
            weight.requires_grad_(False)
        self._begins_with: BlockHead | None = None

    @property
    def is_trained(self) -> bool:
        """See `loop.Trainee`."""
        return self._begins_with is not None

    def begin_with(self, head: BlockHead) -> None:
        """Go on from a head that was trained before, in place of a fresh one.

        Raises:
            ModelError: its weights are of other shapes than the recipe asks for.
        """
        given, own = (
            {name: weight.shape for name, weight in one.own_state().items()}
            | {name: getattr(one.config, name) for name in _CONVENTIONS}
            | {name: getattr(one.config.layers, name) for name in _OF_LAYERS}
            for one in (head, self.head)
        )
        other = sorted(name for name in {*given, *own} if given.get(name) != own.get(name))
        if other:
            raise ModelError(f"the head to go on from has another {', '.join(other[:3])} than can be trained here")
        self._begins_with = head

    def loss(self, batch: Packed, draw: np.random.Generator) -> torch.Tensor:
        """The mean loss of blocks at places drawn at random."""
        recipe, whole = self.recipe, self.head.config.num_proposals
        proposals = min(_FIRST, whole) if draw.random() < recipe.short else whole
        chosen = anchors.drawn(batch, recipe.anchors * whole // proposals, proposals, draw)
        rows, heat = chosen.before.flatten(1), batch.heat.clamp_min(COLDEST)
        taps, shares, tokens = self._lesson(batch, heat)
        with precision(batch.tokens.device):
            size = self.head.config.first_slot + proposals
            states = self._states(batch, chosen, taps, size) / heat.gather(1, rows).view(-1, 1)
        states = self._dropped(states, draw)
        p, ids = rows_at(shares, rows), rows_at(tokens, rows)
        kind = torch.bfloat16 if is_in_bf16(batch.tokens.device) else torch.float32
        tail = self._tail()
        q = losses.lumped(log_candidates(states.to(kind), self._table.to(kind), tail.to(kind), ids).exp())
        loss, accepted = losses.LOSSES[recipe.loss](p, q), losses.overlap(p, q)
        valid = chosen.is_valid.view(-1, proposals).float()
        return losses.weighted(loss.view(valid.shape), accepted.view(valid.shape), valid, recipe.weights)

    def _lesson(self, batch: Packed, heat: torch.Tensor) -> Lesson:
        """What the target has to say of a batch; it is asked once for steps in a row on the same one."""
        if self._last is None or self._last[0] is not batch:
            with precision(batch.tokens.device):
                taps, wanted = self._features(batch)
            self._last = batch, (taps, *target_shares(wanted, heat, self.recipe.candidates))
        return self._last[1]

    def prepare(self, documents: Sequence[Document]) -> None:
        """Have attention begin with where to look, and the transition with what follows what in the texts.

        A head that was trained before knows both.
        """
        if self._begins_with is not None:
            self.head.load_state_dict(self._begins_with.own_state(), strict=False)
            return
        some = pack(documents[:_SHOWN], self.recipe.length).rows(slice(self.recipe.sequences), self._target.device)
        taps, _ = self._features(some)
        is_text = some.document >= 0
        aim(self.head, torch.cat(taps, -1)[is_text], some.tokens[is_text])
        if self.head.markov_head is not None:
            warm_up(self.head.markov_head, documents, self.recipe.seed)

    @torch.no_grad()
    def logits(self, batch: Packed, chosen: Anchors) -> tuple[torch.Tensor, torch.Tensor]:
        """See `evaluate.Scored`."""
        with precision(batch.tokens.device):
            taps, wanted = self._features(batch)
            states = self._states(batch, chosen, taps, self.head.config.block_size)
        given = states.float() @ torch.cat([self._table.float(), self._tail().float()], 1).T
        return rows_at(wanted, chosen.before.flatten(1)).float(), given

    def write(self, folder: Path) -> None:
        """The head as it is now."""
        write_head(self.head, folder, self._about)

    def weights(self) -> dict[str, torch.Tensor]:
        """What is trained, by name."""
        return {name: weight for name, weight in self.head.named_parameters() if weight.requires_grad}

    def _states(self, batch: Packed, chosen: Anchors, taps: list[torch.Tensor], size: int) -> torch.Tensor:
        """(N * A * P, h + r): of each proposal its hidden state, and the transition's vector behind true tokens.

        They are those of blocks of `size` slots, of which there may be more than proposals.
        """
        head, (n, a) = self.head, chosen.places.shape
        config, positions, proposals = head.config, batch.positions.view(1, -1), chosen.before.shape[-1]
        context = head.context([tap.reshape(1, positions.shape[1], -1) for tap in taps], positions)
        step = PackedBlocks(context, chosen.places, batch.document, size, config.is_causal)
        tokens = torch.full((n, a, size), config.mask_token_id, device=batch.tokens.device)
        tokens[..., 0] = batch.tokens.gather(1, chosen.places)
        slots = torch.arange(size, device=tokens.device)
        at = batch.positions.gather(1, chosen.places)[..., None] + slots
        with answered_by(step):
            states, _ = head(tokens.view(1, -1), at.view(1, -1))
        hidden: torch.Tensor = states.view(n * a, size, -1)[:, config.first_slot :][:, :proposals]
        if head.markov_head is None:
            return hidden.flatten(0, 1)
        before = batch.tokens.gather(1, chosen.before.flatten(1)).view(n * a, proposals)
        vectors: torch.Tensor = head.markov_head.vectors(hidden, before)
        return torch.cat([hidden, vectors.to(hidden.dtype)], -1).flatten(0, 1)

    def _dropped(self, states: torch.Tensor, draw: np.random.Generator) -> torch.Tensor:
        """The same with some of the transition's vectors gone.

        An engine picks candidates by a slot's own logits, before it knows the token before them: so these have to be
        good by themselves.
        """
        width = self.head.config.layers.hidden_size
        keeps = torch.from_numpy(draw.random((len(states), 1), np.float32) >= self.recipe.drop)
        return torch.cat([states[:, :width], states[:, width:] * keeps.to(states.device)], -1)

    def _tail(self) -> torch.Tensor:
        """(V, r)."""
        transition = self.head.markov_head
        return self._table[:, :0] if transition is None else transition.markov_w2.weight


def precision(device: torch.device) -> AbstractContextManager[object]:
    """bf16 where the hardware multiplies in it, else float32."""
    return torch.autocast(device.type, torch.bfloat16) if is_in_bf16(device) else nullcontext()


def is_in_bf16(device: torch.device) -> bool:
    """See `precision`."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cuda" or any(getattr(torch.cpu, name, bool)() for name in names)


def target_shares(logits: torch.Tensor, heat: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The target's law at temperatures (N, S), from its logits (N, S, V), and its likeliest tokens (N, S, K).

    It is their probabilities with that of all others behind them, (N, S, K + 1).
    """
    scores = logits.float()
    tokens = scores.topk(min(count, scores.shape[-1] - 1), -1).indices
    return losses.on_candidates(scores, tokens, heat[..., None]), tokens


def rows_at(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(N * R, X) of values (N, S, X) at places (N, R)."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[-1])).flatten(0, 1)


@torch.no_grad()
def _initialise(head: BlockHead, target: PreTrainedModel) -> None:
    """Weights that keep a state's size, and a transition that says nothing yet.

    What a layer adds is larger than the embedding of its token, which a tied language-model head would name again. The
    final norm begins as a part of the target's, at whose scale the shared language-model head gives logits.
    """
    last = getattr(target.get_decoder(), "norm", None)
    if isinstance(weight := getattr(last, "weight", None), torch.Tensor) and weight.shape == head.norm.weight.shape:
        head.norm.weight.copy_(weight * _QUIET)
    for name, weight in head.named_parameters():
        if weight.ndim > 1 and not name.startswith("markov_head"):
            weight.normal_(0.0, weight.shape[1] ** -0.5)
    if head.markov_head is not None:
        nn.init.normal_(head.markov_head.markov_w1.weight, 0.0, 1.0)
        nn.init.zeros_(head.markov_head.markov_w2.weight)
