"""One call of `generate`: transformers prepares it, and its decoding method is Paceline's."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from paceline.accelerating.asked import check_arguments, check_attentions, check_inputs, check_settings
from paceline.accelerating.decoding import Manner, drafters_for, requests_of, run
from paceline.accelerating.derived import CACHES
from paceline.accelerating.engines import Engines
from paceline.accelerating.returning import Ended, returned
from paceline.accelerating.rows import Prepared

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

_OURS = ("assistant_model", "assistant_tokenizer", "streamer")  # arguments that transformers need not know of
_NO_SETTINGS = (*_OURS, "tokenizer", "trust_remote_code")


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
        self._streamer = self._given.get("streamer")
        self._cache: Any = None  # that the caller goes on behind

    def decoded(self) -> Any:
        """What `generate` returns.

        Raises:
            HandOver: something is asked for that is left to transformers.
        """
        settings = {name: value for name, value in self._settings.items() if name not in _NO_SETTINGS}
        config, inputs = self._model._prepare_generation_config(self._given.get("generation_config"), **settings)
        self._cache = next((inputs[name] for name in CACHES if inputs.get(name) is not None), None)
        check_arguments(self._model, self._given)
        self._llm = self._engines.current()
        check_inputs(self._model, inputs, self._engines.remembered)
        check_settings(config, self._given.get("assistant_model"))
        self._drafters = drafters_for(self._llm, self._given.get("assistant_model"))
        given = {name: value for name, value in self._given.items() if name not in _OURS}
        self._take_stop_strings(given, config)
        given["custom_generate"] = self._decode
        return type(self._model).generate(self._model, **given)

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
        inputs_tensor: torch.Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        """The decoding method, as transformers calls it with what it has prepared."""
        source = inputs_tensor if model.config.is_encoder_decoder else None
        embeddings = inputs.get("inputs_embeds")
        embedded = None if embeddings is None or source is not None else self._engines.embedded().tokens(embeddings)
        law = (logits_processor, stopping_criteria, generation_config)
        prepared = Prepared(input_ids, *law, inputs, source, embedded, self._cache is not None)
        if self._cache is not None:
            self._engines.remembered.check(self._cache, prepared.prompts, inputs.get("attention_mask"))
        return returned(model, self._ended(prepared), prepared, self._engines.remembered)

    def _ended(self, prepared: Prepared) -> Ended:
        """A prepared batch, gone on with; nothing is handed over once the streamer has been told of it."""
        rows, llm = prepared.rows(), self._llm
        check_attentions(self._model, prepared.config, prepared.prompts.shape[1] + rows[0].law.num_new)
        requests = requests_of(llm, rows, Manner.of(prepared.config, self._drafters))
        if self._streamer is not None:
            self._streamer.put(prepared.input_ids.cpu())
        run(llm, requests, self._streamer, prepared.pad)
        errors = [row.law.error for row in rows if row.law.error is not None]
        if errors:
            raise errors[0]
        if self._streamer is not None:
            self._streamer.end()
        outputs = [request.tokens[request.num_prompt_tokens :] for request in requests]
        if not prepared.ends().pads:  # transformers stops all rows at once
            shortest = min(map(len, outputs))
            outputs = [tokens[:shortest] for tokens in outputs]
        return Ended(rows, outputs, prepared.pad)
