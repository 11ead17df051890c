"""One call of `generate`: transformers prepares it, and its decoding method is Paceline's."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from paceline.accelerating.asked import check_arguments, check_settings
from paceline.accelerating.decoding import Manner, Row, requests_of, run
from paceline.accelerating.ends import ends_of
from paceline.accelerating.engines import Engines
from paceline.accelerating.law import RowLaw
from paceline.accelerating.processors import check_processors, of_row
from paceline.accelerating.returning import Ended, returned
from paceline.accelerating.rows import prompts_of

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

_DRAFTING = ("assistant_model", "assistant_tokenizer")  # arguments that transformers need not know of
_NO_SETTINGS = (*_DRAFTING, "streamer", "tokenizer", "trust_remote_code", "inputs", "generation_config")


class Call:
    """What a caller gave, and what becomes of it.

    Args:
        model: whose `generate` was called.
        engines: what decodes for it.
        args: positional arguments of `generate`.
        kwargs: the others.
    """

    def __init__(self, model: PreTrainedModel, engines: Engines, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        self._model, self._engines = model, engines
        bound = inspect.signature(type(model).generate).bind(model, *args, **kwargs).arguments
        self._settings = bound.pop("kwargs", {})  # and what goes to the model's forward
        del bound["self"]
        self._given = {**self._settings, **bound}

    def decoded(self) -> Any:
        """What `generate` returns.

        Raises:
            HandOver: something is asked for that is left to transformers.
        """
        settings = {name: value for name, value in self._settings.items() if name not in _NO_SETTINGS}
        config, inputs = self._model._prepare_generation_config(self._given.get("generation_config"), **settings)
        check_arguments(self._model, self._given, inputs)
        check_settings(config, self._given.get("assistant_model"))
        given = {name: value for name, value in self._given.items() if name not in (*_DRAFTING, "streamer")}
        self._take_stop_strings(given, config)
        return type(self._model).generate(self._model, **given, custom_generate=self._decode)

    def _take_stop_strings(self, given: dict[str, Any], config: GenerationConfig) -> None:
        """Make their criterion here: transformers keeps the tokenizer that it needs from foreign decoding methods."""
        from transformers import StoppingCriteriaList, StopStringCriteria

        tokenizer = given.pop("tokenizer", None)
        if config.stop_strings is not None and tokenizer is not None:
            found = StopStringCriteria(stop_strings=config.stop_strings, tokenizer=tokenizer)
            given["stopping_criteria"] = StoppingCriteriaList([found, *(given.get("stopping_criteria") or ())])
            given["stop_strings"] = None

    def _decode(
        self,
        model: PreTrainedModel,
        input_ids: torch.Tensor,
        logits_processor: Sequence[Any],
        stopping_criteria: Sequence[Any],
        generation_config: GenerationConfig,
        **inputs: Any,
    ) -> Any:
        """The decoding method, as transformers calls it with what it has prepared."""
        rows = _rows(input_ids, inputs, logits_processor, stopping_criteria, generation_config)
        ends = ends_of(stopping_criteria, len(rows))
        manner = Manner.of(generation_config, None)
        llm = self._engines.current()
        requests = requests_of(llm, rows, manner)
        streamer = self._given.get("streamer")
        if streamer is not None:
            streamer.put(input_ids.cpu())
        pad = _pad_of(generation_config)
        run(llm, requests, streamer, pad)
        for row in rows:
            if row.law.error is not None:
                raise row.law.error
        if streamer is not None:
            streamer.end()
        outputs = [request.tokens[request.num_prompt_tokens :] for request in requests]
        if not ends.pads:
            shortest = min(map(len, outputs))
            outputs = [tokens[:shortest] for tokens in outputs]
        return returned(model, Ended(input_ids, rows, outputs, pad), generation_config, inputs)


def _rows(
    input_ids: torch.Tensor,
    inputs: dict[str, Any],
    processors: Sequence[Any],
    criteria: Sequence[Any],
    config: GenerationConfig,
) -> list[Row]:
    """The rows of a prepared batch, and the law of each."""
    prompts, num_rows = prompts_of(input_ids, inputs.get("attention_mask")), len(input_ids)
    check_processors(processors, num_rows)
    ends = ends_of(criteria, num_rows)
    keeps = bool(config.return_dict_in_generate and (config.output_scores or config.output_logits))
    num_new = max(1, ends.max_length - input_ids.shape[1])
    return [
        Row(
            prompt,
            RowLaw(input_ids[i], num_new, ends.tokens, of_row(processors, i, num_rows), ends.asked, keeps, i),
        )
        for i, prompt in enumerate(prompts)
    ]


def _pad_of(config: GenerationConfig) -> int:
    """What ended rows are filled with."""
    pad = config._pad_token_tensor
    return 0 if pad is None else int(pad)
