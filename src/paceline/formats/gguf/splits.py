"""How byte-level vocabularies cut a text before merging: by the name that a file's `tokenizer.ggml.pre` says.

The expressions are those of the models' own tokenizer.json files. A name is in the table if its kind is known here:
another split gives other tokens without a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tokenizers import Regex, normalizers, pre_tokenizers

from paceline.errors import ModelError


@dataclass(frozen=True)
class Split:
    """How one kind of vocabulary cuts texts."""

    patterns: tuple[str, ...] = ()  # applied in turn; none: GPT-2's
    single_digits: bool = False
    composes: bool = False  # Unicode's NFC before all else
    whole_words: bool = False  # a piece that is a token is taken without merging
    adds_bos: bool = False  # where a file does not say

    def pre_tokenizer(self) -> Any:
        """It as the `tokenizers` library has it."""
        parts: list[Any] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in self.patterns]
        if self.single_digits:
            parts.append(pre_tokenizers.Digits(individual_digits=True))
        parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not self.patterns))
        return pre_tokenizers.Sequence(parts)

    def normalizer(self) -> Any:
        """What is done to a text first; None for nothing."""
        return normalizers.NFC() if self.composes else None


_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED_REST = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}|{_CASED_REST}"
_GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTIONS}?|\p{{N}}{{1,3}}|{_CASED_REST}"
)
_DEEPSEEK_LETTERS = (
    "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-"
    "\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481"
    "\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b"
    "\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b"
    "\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    "\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8"
    "-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943]+"
)
_HAN = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_DEEPSEEK_LLM = (
    "[\r\n]",
    _DEEPSEEK_LETTERS,
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+$",
    _HAN,
)
_DEEPSEEK_CODER = ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN)

_OF_LLAMA3 = Split((_LLAMA3,), whole_words=True, adds_bos=True)
_OF_QWEN2 = Split((_QWEN2,))
_OF_GPT4O = Split((_GPT4O,))
_DIGITS = Split(single_digits=True)

SPLITS: Final = {
    **dict.fromkeys(("gpt-2", "phi-2"), Split()),
    **dict.fromkeys(("smollm", "starcoder", "refact", "codeshell", "minerva-7b"), _DIGITS),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "midm-2.0"), _OF_LLAMA3),
    **dict.fromkeys(("dbrx", "smaug-bpe"), Split((_LLAMA3,))),
    "qwen2": Split((_QWEN2,), composes=True),
    **dict.fromkeys(("deepseek-r1-qwen", "megrez", "kormo"), _OF_QWEN2),
    "tekken": Split((_TEKKEN,), whole_words=True, adds_bos=True),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2"), _OF_GPT4O),
    "deepseek-llm": Split(_DEEPSEEK_LLM, single_digits=True),
    "deepseek-coder": Split(_DEEPSEEK_CODER, single_digits=True),
}
# Where a file says nothing, or `default`, its architecture may leave no doubt.
_BY_ARCHITECTURE = {"gpt2": "gpt-2", "qwen2": "qwen2", "qwen3": "qwen2", "qwen3moe": "qwen2"}


def split_of(pre: str, architecture: str) -> Split:
    """How a vocabulary cuts texts.

    Raises:
        ModelError: a name that is not known here.
    """
    name = _BY_ARCHITECTURE.get(architecture, pre) if pre in ("", "default") else pre
    if name not in SPLITS:
        raise ModelError(
            f"the tokenizer's tokenizer.ggml.pre is {pre!r}; allowed: {', '.join(SPLITS)}; "
            "or give the tokenizer of the original model"
        )
    return SPLITS[name]
