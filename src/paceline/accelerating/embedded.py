"""Embeddings in place of token ids, where they are those of tokens, which then are all that has to be known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from paceline.accelerating.handing_over import HandOver

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_COLUMNS = 16  # of an embedding, which tell tokens apart; what looks like one is then compared whole
_TRIED = 8  # tokens, by which a model is seen to take both for the same


class Embedded:
    """The tokens of a model by their embeddings."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Read the whole table, and try whether the model does the same with tokens and with their embeddings."""
        embedding = model.get_input_embeddings()
        with torch.no_grad():
            self._table = embedding(torch.arange(embedding.weight.shape[0], device=embedding.weight.device))
            some = torch.arange(_TRIED, device=self._table.device)[None]
            logits = (model(**given).logits for given in ({"input_ids": some}, {"inputs_embeds": self._table[some]}))
            self._are_the_same = torch.equal(*logits)
        self._ids = {key: token for token, key in reversed([*enumerate(_keys(self._table))])}

    def tokens(self, embeddings: torch.Tensor) -> torch.Tensor:
        """The token ids (B, S) of embeddings (B, S, D).

        Raises:
            HandOver: they are not those of tokens, or the model does something else with tokens.
        """
        found = [self._ids.get(key, -1) for key in _keys(embeddings.reshape(-1, embeddings.shape[-1]))]
        ids = torch.tensor(found, device=embeddings.device).reshape(embeddings.shape[:2])
        if not self._are_the_same or bool((ids < 0).any()) or not torch.equal(self._table[ids], embeddings):
            raise HandOver("inputs_embeds", "they are not the embeddings of tokens, which alone Paceline reads")
        return ids


def _keys(rows: torch.Tensor) -> list[bytes]:
    some = rows.detach()[:, :_COLUMNS].contiguous().cpu()
    return [row.tobytes() for row in some.view(torch.uint8).numpy()]
