"""The chat itself: messages are answered, commands obeyed, until the user leaves."""

from __future__ import annotations

from dataclasses import asdict

from paceline.cli.chat.answer import REASONING, Answer, Figures, Settings, Speaker
from paceline.cli.chat.commands import Commands
from paceline.cli.chat.conversation import Conversation, Turn
from paceline.cli.chat.reading import Reader
from paceline.cli.chat.view import View
from paceline.errors import ConfigError, PacelineError

_NO_TEMPLATE = "there is no chat template, so your text is continued. It is one growing text; /reset empties it"
_LEAVING = "Ctrl-C once more, Ctrl-D or /quit leaves"


class Talk:
    """A conversation of a user with a model."""

    def __init__(self, speaker: Speaker, settings: Settings, conversation: Conversation, view: View) -> None:
        self.speaker, self.settings, self.conversation, self._view = speaker, settings, conversation, view
        self.last: Figures | None = None
        self.num_failures = 0
        self._commands = Commands(self, view)
        self._has_said_mode = False
        self._was_interrupted = False

    def run(self, reader: Reader) -> None:
        """Until the reader has no more, the user leaves, or presses Ctrl-C twice.

        Raises:
            KeyboardInterrupt: where messages come from a pipe, while the next one is awaited.
        """
        self.say_mode()
        while not self._commands.is_over:
            try:
                message = reader.read()
            except EOFError:
                return
            except KeyboardInterrupt:
                if not reader.is_interactive:
                    raise
                if self._was_interrupted:
                    return
                self._was_interrupted = True
                self._view.note(_LEAVING)
                continue
            self._was_interrupted = False
            try:
                self._take(message)
            except KeyboardInterrupt:  # in between
                self._was_interrupted = True

    def say_mode(self) -> None:
        """That text is continued, once, where it is."""
        if not self.speaker.is_chat and not self._has_said_mode:
            unused = ". The system prompt is not used" if self.conversation.system else ""
            self._view.note(f"{self.speaker.name}: {_NO_TEMPLATE}{unused}")
            self._has_said_mode = True

    def retry(self) -> None:
        """Answer once more what was said last.

        Raises:
            ConfigError: nothing was said.
        """
        turns = self.conversation.turns
        if not turns:
            raise ConfigError("nothing was said yet; allowed: a message")
        dropped = self.conversation.drop_answer()
        if not self._answer():
            turns.extend(dropped)

    def _take(self, message: str) -> None:
        try:
            if message.startswith("/") and not message.startswith("//"):
                self._commands.obey(message)
                return
        except PacelineError as error:
            self._fail(error)
            return
        text = message[1:] if message.startswith("//") else message
        if not text.strip() and (self.speaker.is_chat or not self.conversation.turns):
            return
        self.conversation.turns.append(Turn("user", text))
        if not self._answer():
            self.conversation.turns.pop()

    def _answer(self) -> bool:
        """Have the next answer come; False if there is none, and the conversation is as it was."""
        try:
            answer = self.speaker.answer(self.conversation, self.settings)
        except KeyboardInterrupt:
            self._was_interrupted = True
            self._view.note("stopped before any text came")
            return False
        except PacelineError as error:
            self._fail(error)
            return False
        self.say_mode()
        turn = Turn("assistant", "")
        failure = self._follow(answer, turn)
        if failure is not None:
            self._fail(failure)
            if not turn.text:
                return False
        self.last = answer.figures
        turn.figures = asdict(self.last)
        self.conversation.turns.append(turn)
        self._view.figures(self.last, turn.is_cut)
        return True

    def _follow(self, answer: Answer, turn: Turn) -> PacelineError | None:
        """Show an answer as it comes and put it into a turn; the error that it broke off with."""
        try:
            for piece in answer:
                turn.text += piece.text if piece.source != REASONING else ""
                self._view.piece(piece)
        except KeyboardInterrupt:
            answer.close()
            turn.is_cut = self._was_interrupted = True
        except PacelineError as error:
            answer.close()
            turn.is_cut = True
            return error
        return None

    def _fail(self, error: PacelineError) -> None:
        self.num_failures += 1
        self._view.error(error)
