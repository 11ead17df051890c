"""Logits processors, row by row.

transformers calls a processor with a whole batch, Paceline with each row alone, at the same prefixes, in their order.
For one row that is the same, whatever the processor does. For several it is so if a row's scores depend on that row
alone, as those of transformers' own do once each is given its row's share of what it holds.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from paceline.accelerating.handing_over import HandOver

_BY_ROW = {
    "EncoderNoRepeatNGramLogitsProcessor",
    "EncoderRepetitionPenaltyLogitsProcessor",
    "EpsilonLogitsWarper",
    "EtaLogitsWarper",
    "ExponentialDecayLengthPenalty",
    "ForcedBOSTokenLogitsProcessor",
    "ForcedEOSTokenLogitsProcessor",
    "InfNanRemoveLogitsProcessor",
    "LogitNormalization",
    "MinLengthLogitsProcessor",
    "MinNewTokensLengthLogitsProcessor",
    "MinPLogitsWarper",
    "NoBadWordsLogitsProcessor",
    "NoRepeatNGramLogitsProcessor",
    "PrefixConstrainedLogitsProcessor",
    "RepetitionPenaltyLogitsProcessor",
    "SequenceBiasLogitsProcessor",
    "SuppressTokensAtBeginLogitsProcessor",
    "SuppressTokensLogitsProcessor",
    "TemperatureLogitsWarper",
    "TopHLogitsWarper",
    "TopKLogitsWarper",
    "TopPLogitsWarper",
    "TypicalLogitsWarper",
    "WatermarkLogitsProcessor",
}
MARK = "is_function_of_prefix"  # the attribute by which a processor or criterion of a caller's says that it is
_HOME = "transformers.generation."


def check_processors(processors: Sequence[Any], num_rows: int) -> None:
    """See that each may be called with one row at a time.

    Raises:
        HandOver: one may look at several rows at once.
    """
    for processor in processors:
        if num_rows > 1 and not is_known(processor, _BY_ROW):
            raise several_rows("logits_processor", processor, num_rows)


def of_row(processors: Sequence[Any], row: int, num_rows: int) -> list[Any]:
    """The processors for one row of the batch, alone."""
    return [_of_row(processor, row, num_rows) for processor in processors]


def is_known(one: Any, known: set[str]) -> bool:
    """Whether this is one of transformers' own by those names, or says of itself that it goes by the row."""
    kind = type(one)
    return bool(getattr(one, MARK, False)) or (kind.__module__.startswith(_HOME) and kind.__name__ in known)


def several_rows(argument: str, one: Any, num_rows: int) -> HandOver:
    """The reason why one of a caller's own is left to transformers."""
    why = f"it may look at several of the {num_rows} rows at once; if it does not, set {MARK} = True on it"
    return HandOver(f"{argument} {type(one).__name__}", why)


def _of_row(processor: Any, row: int, num_rows: int) -> Any:
    change = _SHARES.get(type(processor).__name__) if type(processor).__module__.startswith(_HOME) else None
    if change is None or num_rows == 1:
        return processor
    alone = copy.copy(processor)
    change(alone, row, num_rows)
    return alone


def _penalised(processor: Any, row: int, num_rows: int) -> None:
    ignored = processor.prompt_ignore_length
    if ignored is not None and not isinstance(ignored, int):
        processor.prompt_ignore_length = ignored[row : row + 1]


def _penalised_by_source(processor: Any, row: int, num_rows: int) -> None:
    place = row * processor.encoder_input_ids.shape[0] // num_rows
    processor.encoder_input_ids = processor.encoder_input_ids[place : place + 1]


def _barred_by_source(processor: Any, row: int, num_rows: int) -> None:
    place = row * processor.batch_size // num_rows
    processor.generated_ngrams, processor.batch_size = processor.generated_ngrams[place : place + 1], 1


def _constrained(processor: Any, row: int, num_rows: int) -> None:
    place, allowed = row // processor._num_beams, processor._prefix_allowed_tokens_fn
    processor._prefix_allowed_tokens_fn, processor._num_beams = lambda _, ids: allowed(place, ids), 1


_SHARES = {  # of transformers' own, what holds something for each row
    "EncoderNoRepeatNGramLogitsProcessor": _barred_by_source,
    "EncoderRepetitionPenaltyLogitsProcessor": _penalised_by_source,
    "PrefixConstrainedLogitsProcessor": _constrained,
    "RepetitionPenaltyLogitsProcessor": _penalised,
}
