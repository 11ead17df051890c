"""What begins with a slash."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paceline.cli.chat.view import View
from paceline.cli.options import parse_drafters
from paceline.errors import ConfigError

if TYPE_CHECKING:
    from paceline.cli.chat.talk import Talk

_FORCE = "--force"
_KEYS = "Enter sends. Alt-Enter, or a backslash before Enter, begins a line. Ctrl-C stops an answer; Ctrl-D leaves."


@dataclass(frozen=True)
class Command:
    """A command: what it takes, what it does, in words and in code."""

    takes: str
    does: str
    run: Callable[[Commands, str], None]


class Commands:
    """The commands of a chat."""

    def __init__(self, talk: Talk, view: View) -> None:
        self._talk, self._view = talk, view
        self.is_over = False

    def obey(self, message: str) -> None:
        """Do what a message says.

        Raises:
            ConfigError: there is no such command, or not with these arguments.
        """
        name, _, given = message.partition(" ")
        command = _COMMANDS.get(name.strip())
        if command is None:
            near = get_close_matches(name, _COMMANDS, 1)
            hint = f" (is it {near[0]}?)" if near else ""
            raise ConfigError(
                f"there is no {name!r}{hint}; allowed: {', '.join(_COMMANDS)}, or // for a text with a slash"
            )
        if given.strip() and not command.takes:
            raise ConfigError(f"{name} is given {given.strip()!r}; allowed: nothing")
        command.run(self, given.strip())

    def _help(self, given: str) -> None:
        for name, command in _COMMANDS.items():
            self._view.say(f"{name + ' ' + command.takes:<26}{command.does}")
        self._view.say(_KEYS)

    def _quit(self, given: str) -> None:
        self.is_over = True

    def _reset(self, given: str) -> None:
        self._talk.conversation.turns.clear()
        self._view.say("the conversation is empty")

    def _retry(self, given: str) -> None:
        self._talk.retry()

    def _system(self, given: str) -> None:
        talk = self._talk
        if given and not talk.speaker.is_chat:
            raise ConfigError("there is no chat template, so no place for a system prompt; allowed: text to continue")
        if given:
            talk.conversation.system = "" if given == "-" else given
        self._view.say(f"system prompt: {talk.conversation.system or 'none'}")

    def _drafters(self, given: str) -> None:
        settings = self._talk.settings
        if given:
            settings.drafters = parse_drafters(given.split())
        chosen = settings.drafters
        said = "as at the start" if chosen is None else chosen if isinstance(chosen, str) else ", ".join(chosen)
        self._view.say(f"drafters: {said}")

    def _params(self, given: str) -> None:
        settings = self._talk.settings
        wanted = dict(settings.params)
        for item in given.split():
            name, value = parse_param(item)
            wanted[name] = value
        wanted = {name: value for name, value in wanted.items() if value is not None}
        self._talk.speaker.check(wanted)
        settings.params = wanted
        said = " ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in wanted.items())
        self._view.say(f"parameters: {said or 'the defaults'}")

    def _stats(self, given: str) -> None:
        if self._talk.last is None:
            raise ConfigError("there is no answer yet; allowed: a message")
        self._view.stats(self._talk.last)

    def _save(self, given: str) -> None:
        is_forced = given.split(" ")[0] == _FORCE
        path = Path(given.removeprefix(_FORCE).strip() if is_forced else given).expanduser()
        if not path.name:
            raise ConfigError("no file is given; allowed: /save FILE")
        talk = self._talk
        how: dict[str, Any] = {"model": talk.speaker.name, "is_chat": talk.speaker.is_chat}
        how |= {"params": talk.settings.params, "drafters": talk.settings.drafters}
        try:
            with path.open("w" if is_forced else "x", encoding="utf-8") as file:
                file.write(json.dumps(how | talk.conversation.as_dict(), indent=1) + "\n")
        except FileExistsError as error:
            raise ConfigError(
                f"{str(path)!r} is there already; allowed: another file, or /save {_FORCE} FILE"
            ) from error
        except OSError as error:
            raise ConfigError(f"cannot write {str(path)!r} ({error}); allowed: a file that can be written") from error
        self._view.say(f"saved: {path}")


def parse_param(item: str) -> tuple[str, Any]:
    """Name and value of NAME=VALUE: JSON where it is some, else a text; None of NAME= alone.

    Raises:
        ConfigError: no name or no "=".
    """
    name, sign, value = item.partition("=")
    if not name or not sign:
        raise ConfigError(f"{item!r} is no parameter; allowed: NAME=VALUE, temperature=0.7 say")
    if not value:
        return name, None
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


_COMMANDS = {
    "/drafters": Command("[LIST]", "show or choose the drafters of the next answers", Commands._drafters),
    "/help": Command("", "show this", Commands._help),
    "/params": Command("[NAME=VALUE …]", "show or set sampling parameters; NAME= takes one back", Commands._params),
    "/quit": Command("", "leave", Commands._quit),
    "/reset": Command("", "empty the conversation; the system prompt stays", Commands._reset),
    "/retry": Command("", "answer once more what was said last", Commands._retry),
    "/save": Command(f"[{_FORCE}] FILE", f"write the conversation as JSON; {_FORCE} overwrites", Commands._save),
    "/stats": Command("", "show all figures of the last answer", Commands._stats),
    "/system": Command("[TEXT]", "show or set the system prompt; - takes it away", Commands._system),
}
NAMES = tuple(_COMMANDS)
