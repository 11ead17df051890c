"""lm-evaluation-harness's model `paceline`: log-likelihoods by trees, generation with drafts.

    python -m paceline.lmeval run --model paceline --model_args pretrained=org/model --tasks hellaswag

The harness (0.4.13) asks no package which models it brings, so this module has to be imported before its command line:
that is what running it does. Texts become tokens as the harness's own `hf` model has it, by its own code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from paceline.errors import ConfigError
from paceline.llm import LLM
from paceline.text.seam import prefix_id
from paceline.text.tokenizer import Tokenizer

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")
_TOGETHER = 32  # prompts that are handed over at once
Item = TypeVar("Item")
Cut = tuple[Any, list[int], list[int]]  # texts, context and continuation


@register_model("paceline")
class PacelineLM(TemplateLM):  # type: ignore[misc]  # the harness is not typed for us
    """A causal model run by Paceline.

    Args:
        pretrained: what `paceline.LLM` loads, or an `LLM`.
        max_gen_toks: most tokens to generate where a task does not say.
        batch_size, max_batch_size, device: taken as the harness gives them; how many rows share a forward is ours.
        **options: of `paceline.LLM`: `dtype`, `draft_model`, `cache_tokens` and others.
    """

    backend = "causal"

    def __init__(
        self,
        pretrained: Any = None,
        max_gen_toks: int = 256,
        batch_size: Any = 1,
        max_batch_size: Any = None,
        device: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.max_gen_toks = int(max_gen_toks)
        self.llm = pretrained if isinstance(pretrained, LLM) else LLM(pretrained, device=device or "auto", **options)

    @property
    def tokenizer(self) -> Any:
        """The model's, as transformers has it."""
        return self._tokenizer.inner

    @property
    def tokenizer_name(self) -> str:
        """What tells its chat template from others, for the harness's cache."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    @property
    def _tokenizer(self) -> Tokenizer:
        if self.llm.tokenizer is None:
            raise ConfigError("this model has no tokenizer; allowed here: models with one")
        return self.llm.tokenizer

    @property
    def max_length(self) -> int:
        """Of the context, in tokens."""
        return min(self.llm.target.max_length, self.llm.target.capacity)

    @property
    def eot_token_id(self) -> int:
        """The end-of-sequence token."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What an empty context is."""
        return prefix_id(self._tokenizer)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """See `TemplateLM`."""
        return self._tokenizer.encode(string, add_special_tokens is not False) if string else []

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """See `LM`."""
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def _loglikelihood_tokens(
        self, requests: Sequence[Cut], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """All continuations of a context are one tree; contexts come sorted, so that they find their beginnings."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, (_, context, continuation) in enumerate(requests):
            groups.setdefault(tuple(self._fitting(context, continuation)), []).append(index)
        found: dict[int, tuple[float, bool]] = {}
        with tqdm(total=len(requests), disable=disable_tqdm, desc="scoring") as bar:
            for part in _parts(sorted(groups)):
                contexts = list(part)
                several = [[requests[index][2] for index in groups[context]] for context in contexts]
                for key, scores in zip(contexts, self.llm.score(contexts, several), strict=True):
                    answers = [(score.logprob, score.is_greedy) for score in scores]
                    found |= dict(zip(groups[key], answers, strict=True))
                    bar.update(len(answers))
        for index, (texts, _, _) in enumerate(requests):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, found[index])
        return [found[index] for index in range(len(requests))]

    def _fitting(self, context: list[int], continuation: list[int]) -> list[int]:
        """The end of a context for which there is room before a continuation, whose last token needs none."""
        return context[max(len(context) + len(continuation) - 1 - self.max_length, 0) :]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """See `LM`: texts in windows of the context, each token once."""
        windows: list[Cut] = []
        owners: list[int] = []
        for index, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0])
            rolling = get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, context_len=1)
            own = [(None, *make_disjoint_window(window)) for window in rolling]
            windows += own
            owners += [index] * len(own)
        totals = [0.0] * len(requests)
        for index, (logprob, _) in zip(owners, self._loglikelihood_tokens(windows, disable_tqdm), strict=True):
            totals[index] += logprob
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """See `LM`. Requests with the same parameters are decoded together."""
        groups: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(index)
        found: dict[int, str] = {}
        with tqdm(total=len(requests), disable=disable_tqdm, desc="generating") as bar:
            for group in groups.values():
                options = self._options(requests[group[0]].args[1])
                for part in _parts(group):
                    texts = self._generated([requests[index].args[0] for index in part], options)
                    found |= dict(zip(part, texts, strict=True))
                    bar.update(len(part))
        for index, request in enumerate(requests):
            self.cache_hook.add_partial("generate_until", request.args, found[index])
        return [found[index] for index in range(len(requests))]

    def _generated(self, contexts: Sequence[str], options: dict[str, Any]) -> list[str]:
        room = self.max_length - options["max_tokens"]
        if room <= 0:
            raise ConfigError(f"max_gen_toks is {options['max_tokens']}; allowed: below {self.max_length}")
        ids = [self.tok_encode(context)[-room:] for context in contexts]
        return [output.text for output in self.llm.generate(ids, **options)]

    def _options(self, given: dict[str, Any]) -> dict[str, Any]:
        """A task's parameters as options of `generate`.

        Raises:
            ConfigError: one that there is not.
        """
        kwargs: dict[str, Any] = dict(normalize_gen_kwargs(given, self.max_gen_toks))
        stop = [text for text in handle_stop_sequences(kwargs.pop("until", None), None) if text]
        options = {"max_tokens": kwargs.pop("max_gen_toks"), "stop": stop}
        kwargs.pop("do_sample", None)  # without it the temperature is 0
        if unknown := sorted(set(kwargs) - set(_SAMPLING)):
            raise ConfigError(f"a task asks for {', '.join(unknown)}; allowed: {', '.join(_SAMPLING)}")
        return options | kwargs


def _parts(items: Sequence[Item]) -> list[Sequence[Item]]:
    return [items[start : start + _TOGETHER] for start in range(0, len(items), _TOGETHER)]


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
