"""What decoding one sample of one prompt gave: text, tokens, statistics, and steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from paceline.engine.request import Token
from paceline.engine.stats import Stats
from paceline.engine.stopping import Stopped
from paceline.engine.trace import StepRecord
from paceline.params import SamplingParams
from paceline.sampling.logprobs import PromptLogprob


@dataclass(frozen=True)
class Origin:
    """What an output came from."""

    model: str  # its name, if it has one
    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    decode: Callable[[Sequence[int]], str]  # token ids to text


_SHOWN = 40  # characters of a text in an output's repr


@dataclass(frozen=True, repr=False)
class Output:
    """One sample of one prompt, finished."""

    text: str
    token_ids: tuple[int, ...]
    tokens: tuple[Token, ...]
    finish_reason: str
    seed: int
    stats: Stats
    steps: tuple[StepRecord, ...]
    origin: Origin
    # What ended it: a stop string, a token of `stop_token_ids`, "deadline", "uncertain", "stop_when".
    stop_reason: str | int | None = None
    # Of each token of the prompt what the model thought of it, the first's being None; None if nobody asked.
    prompt_logprobs: tuple[PromptLogprob | None, ...] | None = None
    stopped: Stopped | None = None  # where and why, if `stop_when` ended it

    def __repr__(self) -> str:
        end = self.text if len(self.text) <= _SHOWN else "…" + self.text[1 - _SHOWN :]
        pace = f"{self.stats.mean_acceptance_length:.2f} tokens/step"
        return f"Output({end!r}, {len(self.token_ids)} tokens, {self.finish_reason}, {pace})"

    def _repr_html_(self) -> str:
        """The text in a notebook, each token's background by who proposed it."""
        sources = list(dict.fromkeys(token.source for token in self.tokens if token.source != "target"))
        colours = {source: _COLOURS[i % len(_COLOURS)] for i, source in enumerate(sources)}
        text = "".join(_marked(token, colours) for token in self.tokens)
        legend = " ".join(f'<span style="background:{colours[s]}">{escape(s)}</span>' for s in sources)
        about = f"{escape(repr(self))} {legend}".strip()
        return f'<div style="white-space:pre-wrap">{text}</div><small>{about}</small>'


# Okabe and Ito's colours, apart for the colour-blind too, thin enough for text in light and dark notebooks.
_COLOURS = tuple(
    f"{colour}66" for colour in ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
)


def _marked(token: Token, colours: Mapping[str, str]) -> str:
    text = escape(token.text)
    if token.source not in colours:
        return text
    return f'<span style="background:{colours[token.source]}" title="{escape(token.source)}">{text}</span>'
