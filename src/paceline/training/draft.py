"""An independent small model in training: a Llama of a quarter of its target's sizes that imitates the target's law."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from paceline.training import losses
from paceline.training.anchors import Anchors
from paceline.training.block import COLDEST, precision, rows_at, target_shares
from paceline.training.data import Document
from paceline.training.evaluate import DEPTH
from paceline.training.features import Features
from paceline.training.packing import Packed
from paceline.training.recipe import Recipe

_PART = 4  # the target's sizes over the draft model's
_LEAST_HEAD = 16  # width of a head at least


class Independent:
    """A draft model as `evaluate.Scored`: its logits over the same text, behind the same true tokens."""

    depth = DEPTH

    def __init__(self, target: PreTrainedModel, model: PreTrainedModel) -> None:
        self._features, self.module = Features(target, ()), model

    @torch.no_grad()
    def logits(self, batch: Packed, chosen: Anchors) -> tuple[torch.Tensor, torch.Tensor]:
        """See `evaluate.Scored`."""
        rows = chosen.before.flatten(1)
        with precision(batch.tokens.device):
            _, wanted = self._features(batch)
            given = logits_of(self.module, batch)
        return rows_at(wanted, rows).float(), rows_at(given, rows).float()


class DraftTrainee(Independent):
    """See `loop.Trainee`."""

    is_trained = False

    def __init__(self, target: PreTrainedModel, recipe: Recipe, name: str = "") -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            model = LlamaForCausalLM(small_config(target))
        _adopt_embeddings(model, target)
        super().__init__(target, model.to(target.device).train())
        self.recipe = recipe

    def loss(self, batch: Packed, draw: np.random.Generator) -> torch.Tensor:
        """The mean loss over all tokens that the target wrote."""
        follows = torch.zeros_like(batch.is_output)
        follows[:, :-1] = batch.is_output[:, 1:] & (batch.document[:, 1:] == batch.document[:, :-1])
        with precision(batch.tokens.device):
            _, wanted = self._features(batch)
            given = logits_of(self.module, batch)
        heat = batch.heat.clamp_min(COLDEST)
        shares, ids = target_shares(wanted, heat, self.recipe.candidates)
        q = losses.on_candidates(given.float()[follows], ids[follows], heat[follows][:, None])
        return losses.LOSSES[self.recipe.loss](shares[follows], q).mean()

    def prepare(self, documents: Sequence[Document]) -> None:
        """Nothing: it begins with the target's embeddings."""

    def weights(self) -> dict[str, torch.Tensor]:
        """What is trained, by name."""
        return dict(self.module.named_parameters())

    def write(self, folder: Path) -> None:
        """The model as it is now, in bf16; its tokenizer is the target's."""
        folder.mkdir(parents=True, exist_ok=True)
        clone = LlamaForCausalLM(LlamaConfig.from_dict(self.module.config.to_dict() | {"dtype": "bfloat16"}))
        clone.load_state_dict(self.module.state_dict())
        clone.generation_config = GenerationConfig.from_model_config(clone.config)
        transformers_logging.disable_progress_bar()
        clone.to(torch.bfloat16).save_pretrained(folder)


def logits_of(model: PreTrainedModel, batch: Packed) -> torch.Tensor:
    """(N, S, V)."""
    return model(input_ids=batch.tokens, position_ids=batch.positions, use_cache=False).logits  # type: ignore[no-any-return]


def small_config(target: PreTrainedModel) -> LlamaConfig:
    """A quarter of the layers, half of the width: about a sixteenth of the weights."""
    config = target.config.get_text_config()
    heads = max(1, config.num_attention_heads // 2)
    width = max(_LEAST_HEAD * heads, config.hidden_size // 2 // heads * heads)
    return LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=width,
        num_hidden_layers=max(1, config.num_hidden_layers // _PART),
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2) if heads % 2 == 0 else heads,
        intermediate_size=width * 7 // 2,
        max_position_embeddings=getattr(config, "max_position_embeddings", 2048),
        tie_word_embeddings=True,
        bos_token_id=getattr(config, "bos_token_id", None),
        eos_token_id=getattr(config, "eos_token_id", None),
    )


@torch.no_grad()
def _adopt_embeddings(model: LlamaForCausalLM, target: PreTrainedModel) -> None:
    """Start the embeddings as the principal components of the target's."""
    table = target.get_input_embeddings().weight.float().cpu()
    centred = table - table.mean(0)
    directions = torch.linalg.svd(centred, full_matrices=False).Vh[: model.config.hidden_size]
    small = centred @ directions.T
    model.model.embed_tokens.weight.copy_(small * (0.05 / small.std()))
