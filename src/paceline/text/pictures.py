"""Pictures as people hold them, to pictures that a processor reads: within limits, and from nowhere but here.

A picture is a file, the bytes of one, a `data:` URL, an array, or PIL's own. Knows nothing of models.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from paceline.errors import RequestError, first_line

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PICTURES = 32  # of one request
MAX_PIXELS = 32 * 2**20  # of one picture
MAX_PIXELS_TOGETHER = 4 * MAX_PIXELS
_DATA = re.compile(r"data:(image/[\w.+-]+)?(;[\w=.+-]+)*;base64,", re.ASCII)
_ALLOWED = "a file's path, its bytes, a data: URL in base64, an array (H, W, 3) of bytes, or a PIL image"


@dataclass(frozen=True)
class Pictured:
    """A prompt with pictures: a text in which the model's own placeholders stand for them, in their order."""

    text: str
    pictures: tuple[Image, ...]
    add_special_tokens: bool = True  # to the text, where its tokenizer would


def open_pictures(pictures: Sequence[Any], name: str = "images") -> tuple[Image, ...]:
    """The pictures of a prompt, as RGB. None is decoded before the sizes of all are known.

    Raises:
        RequestError: something is no picture, or more than is allowed; or Pillow is missing.
    """
    if len(pictures) > MAX_PICTURES:
        raise RequestError(f"{name} has {len(pictures)} pictures; allowed: up to {MAX_PICTURES} in a request")
    opened = [_opened(picture, f"{name}[{i}]") for i, picture in enumerate(pictures)]
    together = sum(picture.width * picture.height for picture in opened)
    if together > MAX_PIXELS_TOGETHER:
        raise RequestError(f"{name} have {together} pixels together; allowed: up to {MAX_PIXELS_TOGETHER}")
    return tuple(_decoded(picture, f"{name}[{i}]") for i, picture in enumerate(opened))


def open_picture(value: Any, name: str = "image") -> Image:
    """One picture; see `open_pictures`."""
    return _decoded(_opened(value, name), name)


def _decoded(picture: Image, name: str) -> Image:
    """In RGB, turned as its file says."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(picture).convert("RGB")
    except Exception as error:  # decoders raise whatever they meet
        raise RequestError(f"{name} cannot be read: {first_line(error)}; allowed: {_ALLOWED}") from error


def _opened(value: Any, name: str) -> Image:
    """Its size is known and allowed, and nothing is decoded yet."""
    try:
        from PIL import Image
    except ImportError as error:
        raise RequestError('pictures need Pillow, which is not installed: pip install "paceline[pictures]"') from error
    found = value if isinstance(value, Image.Image) else _found(value, name)
    if not 0 < found.width * found.height <= MAX_PIXELS:
        raise RequestError(f"{name} has {found.width} times {found.height} pixels; allowed: 1 to {MAX_PIXELS}")
    return found


def _found(value: Any, name: str) -> Image:
    from PIL import Image

    source = _source(value, name)
    try:
        if isinstance(source, bytes):
            return Image.open(BytesIO(source))
        return Image.open(source) if isinstance(source, str | os.PathLike) else Image.fromarray(source)
    except Exception as error:  # no picture; or a bomb, which PIL refuses
        raise RequestError(f"{name} cannot be read: {first_line(error)}; allowed: {_ALLOWED}") from error


def _source(value: Any, name: str) -> Any:
    """A path, bytes or an array."""
    if isinstance(value, str) and value.startswith("data:"):
        return data_of(value, name)
    if isinstance(value, str) and re.match(r"\w+://", value):
        raise RequestError(f"{name} is at {value[:60]!r}, and nothing is fetched from a network; allowed: {_ALLOWED}")
    if isinstance(value, str | bytes | os.PathLike) or hasattr(value, "__array_interface__"):
        return value
    raise RequestError(f"{name} is a {type(value).__name__}; allowed: {_ALLOWED}")


def data_of(url: str, name: str) -> bytes:
    """The bytes in a `data:` URL.

    Raises:
        RequestError: it holds no picture in base64.
    """
    head = _DATA.match(url)
    try:
        return base64.b64decode(url[head.end() :], validate=True) if head else _refuse(url, name)
    except binascii.Error:
        return _refuse(url, name)


def _refuse(url: str, name: str) -> bytes:
    raise RequestError(f"{name} is {url[:40]!r}; allowed: data:image/…;base64,… of a picture")
