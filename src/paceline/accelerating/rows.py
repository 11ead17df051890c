"""The rows of a batch as transformers prepared it: the prompt and the law of each, and its source if it has one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from paceline.accelerating.ends import Ends, ends_of
from paceline.accelerating.handing_over import HandOver
from paceline.accelerating.law import RowLaw
from paceline.accelerating.processors import check_processors, of_row

if TYPE_CHECKING:
    from transformers import GenerationConfig


@dataclass(frozen=True)
class Row:
    """A row: its tokens without padding, how they go on, and what an encoder reads for it, if there is one."""

    prompt: list[int]
    law: RowLaw
    source: list[int] | None = None


@dataclass(frozen=True)
class Prepared:
    """What transformers hands to a decoding method.

    Attributes:
        input_ids: (B, L), each row as often as it is to be gone on with.
        processors: that make scores of logits.
        criteria: that end rows.
        config: the settings.
        inputs: what goes to the model's forward beside the ids.
        source: of an encoder-decoder, what its encoder reads: (B', S), where B is a multiple of B'.
    """

    input_ids: torch.Tensor
    processors: Sequence[Any]
    criteria: Sequence[Any]
    config: GenerationConfig
    inputs: dict[str, Any]
    source: torch.Tensor | None
    embedded: torch.Tensor | None = None  # (B, S) the tokens whose embeddings stand for the prompts, if they do
    has_own_cache: bool = False  # the caller's, which holds a beginning of the prompts

    @property
    def prompts(self) -> torch.Tensor:
        """The tokens that are read, (B, S): `input_ids`, but where embeddings are given."""
        return self.input_ids if self.embedded is None else self.embedded

    @property
    def pad(self) -> int:
        """What rows that have ended are filled with."""
        pad = self.config._pad_token_tensor
        return 0 if pad is None else int(pad)

    def ends(self) -> Ends:
        """What ends the rows."""
        return ends_of(self.criteria, len(self.input_ids))

    def rows(self) -> list[Row]:
        """The rows, each with a law of its own.

        Raises:
            HandOver: they are padded, or their processors or criteria made, as Paceline cannot have it.
        """
        count, ends = len(self.input_ids), self.ends()
        check_processors(self.processors, count)
        num_new = max(1, ends.max_length - self.input_ids.shape[1])
        keeps = bool(self.config.return_dict_in_generate and (self.config.output_scores or self.config.output_logits))
        laws = [
            RowLaw(ids, num_new, ends.tokens, of_row(self.processors, i, count), ends.asked, keeps, i)
            for i, ids in enumerate(self.input_ids)
        ]
        mask = self.inputs.get("attention_mask")
        if self.source is None:
            return [Row(*one) for one in zip(prompts_of(self.prompts, mask), laws, strict=True)]
        prompts = prompts_of(self.input_ids, self.inputs.get("decoder_attention_mask"))
        sources = sources_of(self.source.repeat_interleave(count // len(self.source), 0), mask)
        return [Row(*one) for one in zip(prompts, laws, sources, strict=True)]


def prompts_of(input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> list[list[int]]:
    """The tokens of each row (B, L) without its padding, which is on its left.

    Raises:
        HandOver: a row is padded elsewhere, or is nothing but padding.
    """
    if attention_mask is None:
        return [row.tolist() for row in input_ids]
    lengths = _lengths(attention_mask)
    places = torch.arange(input_ids.shape[1], device=attention_mask.device)
    if not torch.equal(attention_mask != 0, places >= input_ids.shape[1] - lengths[:, None]):
        raise HandOver("attention_mask", "it hides more than padding on the left")
    return [row[row.shape[0] - n :].tolist() for row, n in zip(input_ids, lengths.tolist(), strict=True)]


def sources_of(source: torch.Tensor, attention_mask: torch.Tensor | None) -> list[list[int]]:
    """The tokens of each source (B, S) without its padding, which is on its right.

    Raises:
        HandOver: it is padded elsewhere, or holds no tokens.
    """
    if source.dim() != 2 or source.is_floating_point():
        raise HandOver("inputs", "Paceline reads token ids alone")
    if attention_mask is None:
        return [row.tolist() for row in source]
    lengths = _lengths(attention_mask)
    places = torch.arange(source.shape[1], device=attention_mask.device)
    if not torch.equal(attention_mask != 0, places < lengths[:, None]):
        raise HandOver("attention_mask", "it hides more than padding on the right of a source")
    return [row[:n].tolist() for row, n in zip(source, lengths.tolist(), strict=True)]


def _lengths(attention_mask: torch.Tensor) -> torch.Tensor:
    lengths = (attention_mask != 0).sum(-1)
    if not bool(lengths.all()):
        raise HandOver("attention_mask", "a row is nothing but padding")
    return lengths
