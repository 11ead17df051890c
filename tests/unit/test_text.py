"""Text from tokens: whole characters, nothing that may become a stop string, and nothing lost."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.text.stream import TextStream


def decoder(pieces: list[bytes]):
    """A byte-level decoder whose token i is `pieces[i]`."""
    return lambda ids: b"".join(pieces[i] for i in ids).decode("utf-8", errors="replace")


def streamed(
    pieces: list[bytes], stop=(), prompt: bytes = b"", unchecked: int = 0, keep: bool = False
) -> tuple[list[str], bool]:
    """What each token releases and what `finish` adds, and whether a stop string ended it."""
    stream = TextStream(decoder([*pieces, prompt]), [len(pieces)] if prompt else [], stop, keep)
    released = []
    for token in range(len(pieces)):
        text, stopped = stream.push(token, check_stop=token >= unchecked)
        released.append(text)
        assert stream.text == "".join(released)
        if stopped is not None:
            assert stopped in stop
            return released, True
    return [*released, stream.finish()], False


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` cut at `places`."""
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(ends)]


texts = st.text("ab !\n…é漢😀👩‍🚀", max_size=30)
places = st.lists(st.integers(0, 200), max_size=40)
stops = st.lists(st.text("ab …😀", min_size=1, max_size=4), min_size=1, max_size=3)


@given(texts, places)
def test_characters_come_whole_and_the_text_is_the_full_decode(text: str, at: list[int]) -> None:
    released, _ = streamed(cut(text.encode(), at))
    assert "".join(released) == text
    assert not any("\ufffd" in piece for piece in released)


@given(st.binary(max_size=30), places)
def test_bytes_that_are_no_characters_come_as_decoders_show_them(data: bytes, at: list[int]) -> None:
    released, _ = streamed(cut(data, at))
    assert "".join(released) == data.decode("utf-8", errors="replace")


@given(texts, places, stops)
def test_text_ends_before_the_first_stop_string_and_never_takes_back(text: str, at: list[int], stop: list[str]) -> None:
    released, stopped = streamed(cut(text.encode(), at), stop)
    joined = "".join(released)
    assert text.startswith(joined)
    assert stopped == any(s in text for s in stop)
    assert not any(s in joined for s in stop)
    assert joined == text or any(text[len(joined) :].startswith(s) for s in stop)


@given(texts, places, stops)
def test_a_stop_string_that_is_kept_ends_the_text_and_nothing_waits_for_one(text, at, stop) -> None:
    cut_short, stopped = streamed(cut(text.encode(), at), stop)
    kept, also_stopped = streamed(cut(text.encode(), at), stop, keep=True)
    assert also_stopped == stopped
    joined = "".join(kept)
    assert joined in {"".join(cut_short) + s for s in stop} if stopped else joined == text
    assert text.startswith(joined)
    assert kept[: len(kept) - 1] == streamed(cut(text.encode(), at))[0][: len(kept) - 1]


@given(texts, places, stops)
def test_what_is_held_back_is_only_what_may_become_a_stop_string(text: str, at: list[int], stop: list[str]) -> None:
    pieces = cut(text.encode(), at)
    stream = TextStream(decoder(pieces), [], stop)
    for token in range(len(pieces)):
        if stream.push(token, check_stop=True)[1] is not None:
            return
        whole = decoder(pieces)(range(token + 1))
        held = whole[len(stream.text) :]
        if whole.endswith("\ufffd"):  # a token that ends within a character waits as a whole
            continue
        assert not held or any(s.startswith(held) and s != held for s in stop)


def test_an_emoji_over_four_tokens_comes_with_the_last_of_them() -> None:
    released, _ = streamed([b"x", *(bytes([b]) for b in "😀".encode()), b"y"])
    assert released == ["x", "", "", "", "😀", "y", ""]


def test_a_character_that_never_ends_comes_with_finish() -> None:
    assert streamed([b"x", b"\xf0\x9f"]) == (["x", "", "\ufffd"], False)


STOPS = {
    "spans tokens": ([b"one ", b"S", b"TO", b"P", b" two"], ["STOP"], ["one ", "", "", ""], True),
    "inside one token": ([b"one STOP two"], ["STOP"], ["one "], True),
    "at the very end": ([b"one", b"STOP"], ["STOP"], ["one", ""], True),
    "at the very beginning": ([b"ST", b"OP"], ["STOP"], ["", ""], True),
    "almost": ([b"one S", b"TO", b"W"], ["STOP"], ["one ", "", "STOW", ""], False),
    "unfinished at the end": ([b"one S", b"TO"], ["STOP"], ["one ", "", "STO"], False),
    "begins again within itself": ([b"aa", b"ab"], ["aab"], ["", "a"], True),
    "the one that begins first wins": ([b"x", b"abcd"], ["cd", "bc"], ["x", "a"], True),
    "the one that is complete first wins": ([b"ab", b"c"], ["abc", "b"], ["a"], True),
    "ends in a character over two tokens": ([b"a", b"\xc3", b"\xa9b"], ["é"], ["a", "", ""], True),
    "a line break": ([b"a\n", b"\nb"], ["\n\n"], ["a", ""], True),
}


@pytest.mark.parametrize("name", STOPS)
def test_stop_string(name: str) -> None:
    pieces, stop, released, stopped = STOPS[name]
    assert streamed(pieces, stop) == (released, stopped)


def test_a_stop_string_that_is_complete_before_it_counts_is_text() -> None:
    assert streamed([b"ST", b"OP", b"!", b"STOP"], ["STOP"], unchecked=2) == (["", "STOP", "!", ""], True)


def test_a_stop_string_that_begins_before_it_counts_and_ends_after_counts() -> None:
    assert streamed([b"ST", b"O", b"P"], ["STOP"], unchecked=2) == (["", "", ""], True)


def test_a_stop_string_in_the_prompt_or_half_in_it_is_none() -> None:
    assert streamed([b"OP", b"!"], ["STOP"], prompt=b"STOP ST") == (["OP", "!", ""], False)


@pytest.mark.parametrize("known", [1, 2, 3])
def test_a_character_that_begins_in_the_prompt_is_not_shown_as_broken(known: int) -> None:
    pieces = [bytes([byte]) for byte in "a😀!".encode()]
    stream = TextStream(decoder(pieces), range(1 + known), ())
    released = [stream.push(token, check_stop=True)[0] for token in range(1 + known, len(pieces))]
    assert "".join(released) == "!"


@given(texts, texts, places)
def test_the_prompt_is_context_and_never_text(before: str, text: str, at: list[int]) -> None:
    def spaced(ids):
        """As SentencePiece: a space in front of every token, except at the start of a text."""
        return " ".join(words[i] for i in ids)

    words = [*text, *before]
    prompt = list(range(len(text), len(words)))
    stream = TextStream(spaced, prompt, ())
    released = "".join(stream.push(token, check_stop=True)[0] for token in range(len(text))) + stream.finish()
    assert spaced(prompt) + released == spaced([*prompt, *range(len(text))])
