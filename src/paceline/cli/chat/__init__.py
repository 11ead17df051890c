"""`paceline chat`: talk with a model of this machine or of a server.

conversation  who said what
answer        what answers: pieces of text, figures
local         a model in this process
remote        a model of a server
commands      what begins with a slash
reading       what the user says, typed or from a pipe
view          what is printed
talk          the loop
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import typer

from paceline.bundled import DEFAULT_TARGET
from paceline.cli.loading import load_with_progress
from paceline.cli.options import DEVICE, DRAFT_MODEL, DRAFTERS, DTYPE, HEAD, parse_drafters
from paceline.pacing import MAX_SLOWDOWN
from paceline.params import SamplingParams

if TYPE_CHECKING:
    from paceline.cli.chat.answer import Speaker

_KEY = "OPENAI_API_KEY"


def chat(
    model: str = typer.Option(
        None,
        metavar="MODEL",
        help="Bundled name, hub name or folder; with --url, one of the server's.",
        show_default=f"{DEFAULT_TARGET}, or the server's first",
    ),
    url: str = typer.Option(None, metavar="URL", help="Talk with a server with OpenAI's API instead."),
    api_key: str = typer.Option(None, metavar="KEY", help="The server's key.", show_default=f"${_KEY}, if set"),
    endpoint: str = typer.Option("auto", metavar="NAME", help="Of the server: auto, chat, or completions (one text)."),
    system: str = typer.Option("", metavar="TEXT", help="The system prompt."),
    drafters: list[str] = DRAFTERS,
    draft_model: str = DRAFT_MODEL,
    head: str = HEAD,
    max_tokens: int = typer.Option(None, help="Most tokens of an answer.", show_default="512, or the server's"),
    temperature: float = typer.Option(None, help="0 is greedy.", show_default="0, or the server's"),
    seed: int = typer.Option(None, help="Same seed, same text.", show_default="drawn"),
    dtype: str = DTYPE,
    device: str = DEVICE,
    max_slowdown: float = typer.Option(MAX_SLOWDOWN, help="As in generate."),
    num_speculative_tokens: int = typer.Option(None, help="Most draft tokens a step.", show_default="as many as pay"),
) -> None:
    """Talk with MODEL, or with the model of a server; /help lists the commands. A pipe has one message a line."""
    from paceline.cli.chat.answer import Settings
    from paceline.cli.chat.commands import NAMES
    from paceline.cli.chat.conversation import Conversation
    from paceline.cli.chat.reading import reader_for
    from paceline.cli.chat.talk import Talk
    from paceline.cli.chat.view import View

    given = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    settings = Settings({name: value for name, value in given.items() if value is not None})
    SamplingParams(**settings.params)  # refused before the model is loaded
    chosen = parse_drafters(drafters)
    loading = {"draft_model": draft_model, "head": head, "dtype": dtype, "device": device, "max_slowdown": max_slowdown}
    loading |= {"num_speculative_tokens": num_speculative_tokens}
    with ExitStack() as stack:
        if url is None:
            speaker = _local(stack, model, {**loading, "drafters": chosen})
        else:
            settings.drafters = None if chosen == "auto" else chosen
            speaker = _remote(stack, url, api_key, model, endpoint)
        reader = reader_for(NAMES)
        talk = Talk(speaker, settings, Conversation(system), View(reader.is_interactive))
        talk.run(reader)
    raise typer.Exit(1 if talk.num_failures and not reader.is_interactive else 0)


def _local(stack: ExitStack, model: str | None, loading: dict[str, Any]) -> Speaker:
    from paceline.cli.chat.local import LocalSpeaker

    return LocalSpeaker(stack.enter_context(load_with_progress(model, **loading)), model or DEFAULT_TARGET)


def _remote(stack: ExitStack, url: str, api_key: str | None, model: str | None, endpoint: str) -> Speaker:
    from paceline.cli.chat.remote import RemoteSpeaker
    from paceline.client import Client

    client = stack.enter_context(Client(url, api_key or os.environ.get(_KEY)))
    return RemoteSpeaker(client, model, endpoint)
