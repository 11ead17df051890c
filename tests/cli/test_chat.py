"""`paceline chat`: what it says and keeps, against a script, the bundled model, and a fake server in a real process."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.responses import Response
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from cli.terminal import Terminal
from openai_fake import OpenAIFake, event, refusal
from paceline.cli.chat.answer import REASONING, Figures, Piece, Settings
from paceline.cli.chat.commands import NAMES
from paceline.cli.chat.conversation import Conversation, Turn
from paceline.cli.chat.local import LocalSpeaker
from paceline.cli.chat.reading import LineReader, TypedReader, open_history
from paceline.cli.chat.talk import Talk
from paceline.cli.chat.view import View
from paceline.errors import EngineError
from paceline.params import SamplingParams


class Scripted:
    """Answers in turn: a list of pieces, in which an exception is raised where it stands."""

    name = "scripted"

    def __init__(self, *answers: Any, is_chat: bool = True) -> None:
        self.is_chat = is_chat
        self.heard: list[Any] = []
        self.params: list[Any] = []
        self._answers = list(answers)

    def check(self, params: dict[str, Any]) -> None:
        SamplingParams().merged(params)

    def answer(self, conversation: Conversation, settings: Settings) -> ScriptedAnswer:
        self.heard.append(conversation.messages() if self.is_chat else conversation.text())
        self.params.append((dict(settings.params), settings.drafters))
        return ScriptedAnswer(self._answers.pop(0))


class ScriptedAnswer:
    def __init__(self, pieces: list[Any]) -> None:
        self._pieces, self._said, self.is_closed = pieces, 0, False

    def __iter__(self) -> Iterator[Piece]:
        for piece in self._pieces:
            if isinstance(piece, BaseException):
                raise piece
            self._said += 1
            yield piece if isinstance(piece, Piece) else Piece(piece, "target")

    def close(self) -> None:
        self.is_closed = True

    @property
    def figures(self) -> Figures:
        drafted = {"num_draft_tokens": 9, "num_accepted_draft_tokens": 4, "drafters": {"suffix": (4, 9)}}
        return Figures(self._said, 1.0, "stop", 12.0, tokens_per_step=1.5, **drafted)


def talk(speaker: Scripted, *lines: str, system: str = "") -> Talk:
    """A chat that reads lines to their end."""
    found = Talk(speaker, Settings(), Conversation(system), View(is_interactive=False))
    found.run(LineReader(io.StringIO("".join(f"{line}\n" for line in lines))))
    return found


def test_a_conversation_grows_and_is_asked_as_a_whole(capsys) -> None:
    speaker = Scripted(["Hel", "lo."], ["Fine."])
    found = talk(speaker, "Hi", "", "How\\", "are you?", "/stats", system="Be kind.")
    assert speaker.heard[1] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "How\nare you?"},
    ]
    shown = capsys.readouterr()
    assert shown.out == "Hello.\nFine.\n"
    assert "1 tokens in 1.00 s · 12 tokens/s · 1.50 tokens a step · suffix 4/9" in shown.err
    assert "4 of 9 (44%)" in shown.err
    assert found.num_failures == 0


def test_without_a_template_the_text_grows_and_it_is_said_once(capsys) -> None:
    speaker = Scripted([" upon"], [" a time"], ["!"], is_chat=False)
    found = talk(speaker, "", "Once", "", "there was", "/system Be brief", "/reset", "/retry")
    assert speaker.heard == ["Once", "Once upon", "Once upon a time there was"]
    assert capsys.readouterr().err.count("is continued") == 1
    assert found.conversation.turns == []
    assert found.num_failures == 2  # no place for a system prompt, nothing to answer once more


def test_commands_shape_the_next_answers(capsys) -> None:
    speaker = Scripted(["a"], ["b"], ["c"])
    settings = ['/params temperature=0.5 stop="x" seed=3', "/drafters suffix,recycle:width=3", "/system S", "1"]
    found = talk(speaker, *settings, "/params seed=", "/drafters none", "/retry", "//help", "/reset")
    assert speaker.params[0] == ({"temperature": 0.5, "stop": "x", "seed": 3}, ["suffix", "recycle:width=3"])
    assert speaker.params[1] == ({"temperature": 0.5, "stop": "x"}, "none")
    assert (
        speaker.heard[1] == speaker.heard[0] == [{"role": "system", "content": "S"}, {"role": "user", "content": "1"}]
    )
    assert speaker.heard[2][-1]["content"] == "/help"
    assert (found.conversation.turns, found.conversation.system) == ([], "S")
    assert found.num_failures == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/statz", "is it /stats?"),
        ("/stats", "no answer yet"),
        ("/quit now", "allowed: nothing"),
        ("/params temperature", "NAME=VALUE"),
        ("/params temperature=-1", "temperature is -1"),
        ("/params tempratur=1", "tempratur"),
        ("/drafters nobody", "nobody"),
        ("/save", "no file"),
        ("/save /nowhere/at/all", "cannot write"),
    ],
)
def test_a_wrong_command_is_one_line_and_the_chat_goes_on(capsys, line: str, said: str) -> None:
    found = talk(Scripted(["yes"]), line, "still there?")
    shown = capsys.readouterr()
    assert said in shown.err.splitlines()[0]
    assert shown.out == "yes\n"
    assert found.num_failures == 1


def test_help_names_every_command(capsys) -> None:
    talk(Scripted(), "/help")
    shown = capsys.readouterr().err
    assert all(name in shown for name in NAMES)


def test_a_conversation_is_saved_and_nothing_overwritten_unless_told(capsys, tmp_path: Path) -> None:
    file = tmp_path / "with space.json"
    found = talk(Scripted(["a\x1b", KeyboardInterrupt()]), "q", f"/save {file}", "/reset", f"/save {file}")
    saved = json.loads(file.read_text())
    assert saved["messages"][0] == {"role": "user", "content": "q"}
    assert saved["messages"][1]["content"] == "a\x1b"
    assert saved["messages"][1]["is_cut"] is True
    assert saved["messages"][1]["figures"]["drafters"] == {"suffix": [4, 9]}
    assert found.num_failures == 1
    assert "is there already" in capsys.readouterr().err
    talk(Scripted(), f"/save --force {file}")
    assert json.loads(file.read_text())["messages"] == []


def test_what_came_before_ctrl_c_or_an_error_stays_and_is_marked(capsys) -> None:
    speaker = Scripted(
        ["half", KeyboardInterrupt()], ["part", EngineError("a step\nfailed")], [EngineError("no")], ["ok"]
    )
    found = talk(speaker, "1", "2", "3", "4")
    kept = [(turn.text, turn.is_cut) for turn in found.conversation.turns]
    assert kept == [("1", False), ("half", True), ("2", False), ("part", True), ("4", False), ("ok", False)]
    shown = capsys.readouterr()
    assert "stopped · 1 tokens" in shown.err
    assert "a step failed" in shown.err.splitlines()
    assert found.num_failures == 2


def test_a_failed_retry_leaves_the_answer_that_was_there() -> None:
    found = talk(Scripted(["first"], [EngineError("no")]), "1", "/retry")
    assert [turn.text for turn in found.conversation.turns] == ["1", "first"]


def test_thoughts_are_shown_and_not_kept(capsys) -> None:
    found = talk(Scripted([Piece("hm ", REASONING), "yes"]), "1")
    assert found.conversation.turns[1].text == "yes"
    assert "hm yes" in capsys.readouterr().out


def test_nothing_that_a_terminal_would_obey_is_printed(capsys) -> None:
    evil = "".join(map(chr, range(32))) + "\x7f\x9b2J\u202e\ud800"
    talk(Scripted([evil, "\x1b]0;owned\x07"], [EngineError(evil)]), "1", "2")
    shown = capsys.readouterr()
    assert [c for c in shown.out + shown.err if not c.isprintable() and c not in "\n\t"] == []
    assert "\\x1b]0;owned\\x07" in shown.out


def test_a_conversation_without_answers_text_keeps_its_turns() -> None:
    said = Conversation(turns=[Turn("user", "a"), Turn("assistant", ""), Turn("user", ", b"), Turn("user", "c")])
    assert [m["content"] for m in said.messages()] == ["a", ", b", "c"]
    assert said.text() == "a, b c"


# --- keys


def typed(keys: str, *history: str) -> list[str | type]:
    """What a reader makes of keys, to its end."""
    past = InMemoryHistory(list(history))
    found: list[str | type] = []
    with create_pipe_input() as source:
        source.send_text(keys + "\x04")
        reader = TypedReader(NAMES, past, source, DummyOutput())
        while True:
            try:
                found.append(reader.read())
            except EOFError:
                return found
            except KeyboardInterrupt:
                found.append(KeyboardInterrupt)


@pytest.mark.parametrize(
    ("keys", "read"),
    [
        ("one\rtwo\r", ["one", "two"]),
        ("one\x1b\rtwo\r", ["one\ntwo"]),  # Alt-Enter
        ("one\\\rtwo\r", ["one\ntwo"]),
        ("\x1b[200~a\nb\n\x1b[201~c\r", ["a\nb\nc"]),  # a bracketed paste
        ("typed\x03kept\r", ["kept"]),
        ("\x03\x03", [KeyboardInterrupt, KeyboardInterrupt]),
        ("\x1b[A\r", ["earlier"]),
    ],
    ids=repr,
)
def test_keys(keys: str, read: list[str | type]) -> None:
    assert typed(keys, "earlier") == read


def test_the_history_is_kept_for_the_user_alone(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path / "new"))
    open_history().append_string("said\nonce")
    assert list(open_history().load_history_strings()) == ["said\nonce"]
    file = tmp_path / "new" / "chat-history"
    assert file.stat().st_mode & 0o077 == 0
    file.write_text("\n# 1\n+x\n" * 200_000)
    open_history()
    assert file.stat().st_size < 2**20
    monkeypatch.setenv("PACELINE_CACHE", str(file))  # no folder
    assert isinstance(open_history(), InMemoryHistory)


# --- the bundled model


def test_the_bundled_model_continues_text_from_a_pipe(run, bundled) -> None:
    done = run("chat", "--max-tokens", "6", stdin="Once upon a time\n/stats\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout == bundled.generate("Once upon a time", max_tokens=6).text + "\n"
    assert "there is no chat template" in done.stderr
    assert "6 tokens in" in done.stderr
    assert "prompt tokens" in done.stderr


def test_a_local_model_with_a_template_chats_and_is_stopped_in_mid_answer(capsys, monkeypatch, bundled) -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    monkeypatch.setattr(bundled.tokenizer.inner, "chat_template", template)
    view = View(is_interactive=False)
    found = Talk(LocalSpeaker(bundled, "it"), Settings({"max_tokens": 9}), Conversation("S"), view)
    found.run(LineReader(io.StringIO("Hi\n")))
    assert found.conversation.turns[1].text == bundled.generate("system: S\nuser: Hi\nassistant:", max_tokens=9).text
    shown = []

    def interrupted(piece: Piece) -> None:
        shown.append(piece.text)
        if len(shown) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(view, "piece", interrupted)
    found.settings.params["max_tokens"] = 500
    found.run(LineReader(io.StringIO("On\n")))
    assert found.conversation.turns[-1].text == "".join(shown)
    assert found.conversation.turns[-1].is_cut
    assert found.last is not None
    assert found.last.finish_reason == "abort"
    assert "stopped ·" in capsys.readouterr().err


def test_a_full_context_says_what_to_do(capsys, bundled) -> None:
    room = bundled.target.max_length
    prompt = "word " * (room - 40)
    speaker, settings = LocalSpeaker(bundled, "it"), Settings({"max_tokens": 9999})
    said = bundled.encode(prompt)
    assert room - 60 < len(said) < room, len(said)
    found = Talk(speaker, settings, Conversation(), View(is_interactive=False))
    found.run(LineReader(io.StringIO(f"{prompt}\n\n{prompt}\n")))
    shown = capsys.readouterr().err
    assert f"the context of {room:,} tokens is full now: /reset" in shown
    assert shown.count("the context is full: the conversation has") == 2
    assert len(found.conversation.turns) == 2


def test_wrong_options_are_refused_before_anything_is_loaded(run) -> None:
    for given in (["--temperature", "-1"], ["--url", "ftp://x"], ["--url", "http://u:p@h"], ["--drafters", "nobody"]):
        done = run("chat", *given)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1


# --- a server


def say(body: dict[str, Any]) -> list[str]:
    last = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
    return ["You", " said\u2028", last, "\x1b[2J"]


def test_a_servers_answers_stream_with_its_key(run) -> None:
    with OpenAIFake(say) as server:
        done = run("chat", "--url", f"{server.url}/v1/", "--api-key", "k", "--temperature", "0.5", stdin="Hi\nHo\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "You said\u2028Hi\\x1b[2J\nYou said\u2028Ho\\x1b[2J\n"
    assert "4 tokens in" in done.stderr
    first, second = server.asked
    assert (first["path"], first["model"], first["temperature"]) == ("chat/completions", "fake/model", 0.5)
    assert [m["role"] for m in second["messages"]] == ["user", "assistant", "user"]
    assert server.keys == ["Bearer k", "Bearer k"]


def test_a_server_without_a_template_continues_the_text(run) -> None:
    def refuse(path: str, body: dict[str, Any]) -> Response | None:
        return refusal(400, "this model has no chat template") if path.startswith("chat") else None

    with OpenAIFake(lambda body: ["!"], refuse=refuse) as server:
        done = run("chat", "--url", server.url, "--drafters", "none", stdin="Hi\nho\n")
    assert done.stdout == "!\n!\n"
    assert [asked.get("prompt") for asked in server.asked] == [None, "Hi", "Hi! ho"]
    assert server.asked[1]["speculation"] == {"drafters": "none"}
    assert done.stderr.count("is continued") == 1


def test_a_servers_errors_are_one_line_and_the_chat_goes_on(run) -> None:
    refusals = [
        refusal(401, "no such\nkey\x1b[31m"),
        refusal(400, "maximum context length is 8 tokens", "context_length_exceeded"),
        Response("<html>" + "x" * 9999, 502),
        Response("data: {broken\n\n", media_type="text/event-stream"),
        Response(
            event({"choices": [{"delta": {"content": "half"}}]}) + event({"error": {"message": "gone"}}),
            media_type="text/event-stream",
        ),
        None,
    ]
    with OpenAIFake(lambda body: ["fine"], refuse=lambda path, body: refusals.pop(0)) as server:
        done = run("chat", "--url", server.url, stdin="1\n2\n3\n4\n5\n6\n")
    assert done.returncode == 1
    assert done.stdout == "half\nfine\n"
    lines = done.stderr.splitlines()
    assert lines[0] == "401: no such key\\x1b[31m"
    assert "/reset empties the conversation" in lines[1]
    assert lines[2].startswith("502: <html>")
    assert "no JSON" in lines[3]
    assert "gone" in lines[4]
    assert [m["content"] for m in server.asked[-1]["messages"]] == ["5", "half", "6"]


def test_a_server_that_is_not_there_is_an_error_of_use(run) -> None:
    with OpenAIFake(say) as server:
        url = server.url
    done = run("chat", "--url", url, stdin="Hi\n")
    assert done.returncode == 2
    assert "failed" in done.stderr


def test_an_answer_that_does_not_stream_is_taken_whole(run) -> None:
    whole = {"choices": [{"message": {"content": "all"}, "finish_reason": "stop"}], "usage": {"completion_tokens": 1}}
    with OpenAIFake(
        say, refuse=lambda path, body: Response(json.dumps(whole), media_type="application/json")
    ) as server:
        done = run("chat", "--url", server.url, stdin="Hi\n")
    assert done.stdout == "all\n"


READY = "\x1b[?2004h"  # bracketed paste is on: the prompt is there


def test_ctrl_c_stops_an_answer_and_not_the_program(tmp_path: Path) -> None:
    with OpenAIFake(lambda body: [f" w{i}" for i in range(99)], pause=0.05) as server:
        terminal = Terminal("chat", "--url", server.url, PACELINE_CACHE=str(tmp_path))
        terminal.read_until(READY)
        terminal.type("first\r")
        terminal.read_until(" w2")
        terminal.process.send_signal(signal.SIGINT)
        terminal.read_until(READY, since="stopped ·")
        terminal.type("second\r")
        terminal.read_until(" w1", since="second")
        terminal.type("\x03")  # by the terminal
        terminal.read_until("stopped ·", since="second")
        terminal.read_until(READY, since="stopped ·")
        terminal.type("/sta")
        terminal.read_until("/stats", since="/sta")  # the menu
        terminal.type("\t\r")
        terminal.read_until(READY, since="ended by")
        terminal.type("\x03")
        terminal.read_until(READY, since="once more")
        terminal.type("\x03")
        assert terminal.end() == 0, terminal.seen
        kept = server.asked[1]["messages"]
    assert [m["role"] for m in kept] == ["user", "assistant", "user"]
    assert kept[1]["content"].startswith(" w0 w1")
    assert " w98" not in kept[1]["content"]
    assert server.num_cut == 2
    assert "Traceback" not in terminal.seen


def test_ctrl_d_and_a_second_ctrl_c_leave(tmp_path: Path) -> None:
    with OpenAIFake(lambda body: ["w "] * 99, pause=0.05) as server:
        terminal = Terminal("chat", "--url", server.url, PACELINE_CACHE=str(tmp_path))
        terminal.read_until(READY)
        terminal.type("\x04")
        assert terminal.end() == 0, terminal.seen
        terminal = Terminal("chat", "--url", server.url, PACELINE_CACHE=str(tmp_path))
        terminal.read_until(READY)
        terminal.type("go\r")
        terminal.read_until("w w ")
        terminal.type("\x03")
        terminal.read_until(READY, since="stopped ·")
        terminal.type("\x03")
        assert terminal.end() == 0, terminal.seen


def test_a_chat_refuses_fields_that_are_its_own(run) -> None:
    with OpenAIFake(say) as server:
        done = run("chat", "--url", server.url, stdin="/params stream=false\n")
    assert "stream is set by the chat itself" in done.stderr
