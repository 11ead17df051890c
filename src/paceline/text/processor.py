"""The processor that comes with a checkpoint: from a text with pictures to token ids, and to what towers read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import AutoProcessor, PreTrainedModel

from paceline.errors import ModelError, RequestError, first_line
from paceline.text.pictures import Pictured

_OF_TOKENS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")


@dataclass(frozen=True)
class Picture:
    """What towers read of one picture, alone: its bits do not depend on its neighbours."""

    inputs: Mapping[str, Any]  # tensors by the names that the model's code has for them
    num_tokens: int  # that stand for it


@dataclass(frozen=True)
class PicturedIds:
    """A prompt with pictures, as the model reads it."""

    ids: list[int]
    pictures: tuple[Picture, ...]
    beside: Mapping[str, Any]  # (1, T) tensors beside the ids, and of all pictures together what towers read


class Processor:
    """A processor of transformers, for pictures and text."""

    def __init__(self, inner: Any, token_id: int) -> None:
        self.inner = inner
        self._token_id = token_id  # that stands for pieces of pictures
        self._mark = mark_of(inner)

    @property
    def mark(self) -> str:
        """What stands for one picture in a text."""
        return self._mark

    def write(
        self, messages: Sequence[Any], pictures: tuple[Any, ...], tools: Sequence[Any] | None, how: Mapping[str, Any]
    ) -> Pictured:
        """What the chat template makes of messages whose contents are lists of parts, some of them pictures.

        Raises:
            RequestError: the template refuses them.
        """
        writer = self.inner if getattr(self.inner, "chat_template", None) else self.inner.tokenizer
        try:
            text = str(
                writer.apply_chat_template(list(messages), tools=list(tools) if tools else None, tokenize=False, **how)
            )
        except Exception as error:  # of the template, whose language may raise anything
            raise RequestError(f"the model's chat template refused the messages: {first_line(error)}") from error
        begins = getattr(self.inner.tokenizer, "bos_token", None)
        return Pictured(text, pictures, not (begins and text.startswith(begins)))

    def read(self, prompt: Pictured) -> PicturedIds:
        """Token ids, and what towers read.

        Raises:
            RequestError: the text has not as many placeholders as there are pictures, or nothing behind the last one;
                or the processor refuses it.
        """
        count, wanted = prompt.text.count(self._mark), len(prompt.pictures)
        if count != wanted:
            raise RequestError(f"the prompt has {count} {self._mark!r} for {wanted} pictures; allowed: one for each")
        how = {} if prompt.add_special_tokens else {"add_special_tokens": False}
        whole = self._call(prompt.text, prompt.pictures, how)
        ids = whole["input_ids"][0].tolist()
        if ids[-1] == self._token_id:  # the last token is read with what is drafted
            raise RequestError("the prompt ends with a picture; allowed: text behind it, one token at least")
        each = [whole] if wanted == 1 else [self._call(self._mark, [picture], {}) for picture in prompt.pictures]
        pictures = tuple(self._picture(one) for one in each)
        if sum(picture.num_tokens for picture in pictures) != ids.count(self._token_id):
            raise RequestError("the prompt has placeholders of pictures that it does not have; allowed: one for each")
        return PicturedIds(ids, pictures, {name: value for name, value in whole.items() if name != "attention_mask"})

    def _picture(self, given: Mapping[str, Any]) -> Picture:
        inputs = {name: value for name, value in given.items() if name not in _OF_TOKENS}
        return Picture(inputs, given["input_ids"][0].tolist().count(self._token_id))

    def _call(self, text: str, pictures: Sequence[Any], how: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return dict(self.inner(text=[text], images=[list(pictures)], return_tensors="pt", **how))
        except Exception as error:  # of the processor's code, or of the checkpoint's
            raise RequestError(f"the model's processor refused the prompt: {first_line(error)}") from error


def is_processor(value: Any) -> bool:
    """True for an object that is a processor: it has a tokenizer, and reads pictures."""
    return hasattr(value, "tokenizer") and hasattr(value, "image_processor")


def read_processor(source: Any, trust_remote_code: bool) -> Any:
    """The processor of a model, a name or a folder.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    place = source.name_or_path if isinstance(source, PreTrainedModel) else source
    try:
        found = AutoProcessor.from_pretrained(place, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise ModelError(f"cannot load the processor of {str(place)!r}: {first_line(error)}") from error
    if not is_processor(found):
        raise ModelError(f"the processor of {str(place)!r} is a {type(found).__name__}, which reads no pictures")
    return found


def mark_of(inner: Any) -> str:
    """What a user writes where a picture stands.

    Raises:
        ModelError: the processor does not say.
    """
    mark = getattr(inner, "image_token", None)
    if not mark:
        raise ModelError(f"{type(inner).__name__} does not say what stands for a picture in a text")
    return str(mark)
