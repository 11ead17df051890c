"""Pictures in conversations: in Python, and by the server."""

from __future__ import annotations

import base64
import struct
import sys
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from paceline.errors import RequestError
from paceline.server.app import create_app
from paceline.server.settings import Settings
from paceline.text.pictures import open_picture, open_pictures
from pictures.tiny import Subject, picture

TEMPLATE = (
    "{% for m in messages %}{{ m.role }} {% for p in m.content %}"
    "{% if p.type == 'image' %}<image> {% else %}{{ p.text }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}w7{% endif %}"
)
WIDE, SMALL = picture(61, 43, 0), picture(29, 31, 2)


@pytest.fixture(scope="module")
def subject() -> Iterator[Subject]:
    torch.set_num_threads(1)
    made = Subject("llava")
    made.processor.chat_template = made.processor.tokenizer.chat_template = TEMPLATE
    yield made
    made.llm.close()


def data_url(image: Image.Image) -> str:
    file = BytesIO()
    image.save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def messages(*parts: Any) -> list[dict[str, Any]]:
    shown = [p if isinstance(p, dict) else {"type": "text", "text": p} for p in parts]
    return [{"role": "system", "content": "w1 w2"}, {"role": "user", "content": shown}]


def test_every_form_of_a_picture_is_the_same_picture(subject: Subject, tmp_path: Any) -> None:
    WIDE.save(tmp_path / "wide.png")
    forms = [
        {"type": "image", "image": WIDE},
        {"type": "image", "image": np.asarray(WIDE)},
        {"type": "image", "path": str(tmp_path / "wide.png")},
        {"type": "image", "image": (tmp_path / "wide.png").read_bytes()},
        {"type": "image_url", "image_url": {"url": data_url(WIDE)}},
    ]
    outs = [subject.llm.chat(messages("w3", form, "w4"), max_tokens=6) for form in forms]
    assert len({out.token_ids for out in outs}) == 1
    prompt = subject.prompt(WIDE)
    whole = type(prompt)("system w1 w2 user w3 <image> w4 w7", prompt.pictures)
    assert list(outs[0].token_ids) == subject.generated(whole, 6)
    other = subject.llm.chat(messages("w3", {"type": "image", "image": SMALL}, "w4"), max_tokens=6)
    assert other.token_ids != outs[0].token_ids


def test_the_server_takes_data_urls_alone(subject: Subject) -> None:
    with TestClient(create_app(subject.llm, Settings(names=("tiny",)))) as client:

        def asked(*parts: Any) -> Any:
            body = {"messages": messages(*parts), "max_tokens": 6, "temperature": 0}
            return client.post("/v1/chat/completions", json=body)

        shown = {"type": "image_url", "image_url": {"url": data_url(WIDE)}}
        found = asked("w3", shown, "w4")
        assert found.status_code == 200, found.text
        ours = subject.llm.chat(messages("w3", {"type": "image", "image": WIDE}, "w4"), max_tokens=6)
        assert found.json()["choices"][0]["message"]["content"] == ours.text
        for url in ("http://localhost/a.png", "/etc/passwd", "file:///etc/passwd", "data:text/plain;base64,AAAA"):
            refused = asked("w3", {"type": "image_url", "image_url": {"url": url}})
            assert refused.status_code == 400
            assert "allowed: data:image" in refused.text
        assert asked("<image>", shown).status_code == 400
        assert asked({"type": "input_audio"}).status_code == 400


def test_what_is_no_picture_is_refused(subject: Subject) -> None:
    for value in (b"no picture", "https://example.org/a.png", 7, "/no/such/file", data_url(WIDE)[:90]):
        with pytest.raises(RequestError, match="allowed"):
            subject.llm.generate({"prompt": "<image>", "images": value}, max_tokens=1)
    with pytest.raises(RequestError, match="33 pictures; allowed: up to 32"):
        subject.llm.generate({"prompt": "<image>" * 33, "images": [SMALL] * 33}, max_tokens=1)
    with pytest.raises(RequestError, match=r"has 1 '<image>' for 2 pictures"):
        subject.llm.generate({"prompt": "<image>", "images": [SMALL, SMALL]}, max_tokens=1)
    with pytest.raises(RequestError, match="ends with a picture; allowed: text behind it"):
        subject.llm.generate({"prompt": "w1 <image>", "images": [SMALL]}, max_tokens=1)
    with pytest.raises(RequestError, match="truncate_prompt_tokens"):
        subject.llm.generate({"prompt": "<image> w1", "images": SMALL}, max_tokens=1, truncate_prompt_tokens=3)


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    """A few bytes that would be gigabytes of pixels: by our limit, and by Pillow's own."""
    for width, message in ((40_000, "40000 times 1000 pixels; allowed: 1 to"), (400_000, "decompression bomb")):
        with pytest.raises(RequestError, match=message):
            open_picture(png_of(width, 1000))
    with pytest.raises(RequestError, match=r"pictures have \d+ pixels together; allowed: up to"):
        open_pictures([png_of(5_000, 5_000)] * 6, "pictures")


def png_of(width: int, height: int) -> bytes:
    """The beginning of a file."""
    found = b"\x89PNG\r\n\x1a\n"
    for kind, content in ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b"")):
        found += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return found


def test_without_pillow_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(RequestError, match=r"pip install \"paceline\[pictures\]\""):
        open_picture(b"anything")
