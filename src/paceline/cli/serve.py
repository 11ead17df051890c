"""`paceline serve`: an OpenAI-compatible server over one model."""

from __future__ import annotations

from pathlib import Path

import typer

from paceline.cli.loading import load_with_progress
from paceline.cli.options import DEVICE, DRAFT_MODEL, DRAFTERS, DTYPE, MODEL, parse_drafters
from paceline.errors import ConfigError
from paceline.pacing import MAX_SLOWDOWN


def serve(
    model: str = MODEL,
    drafters: list[str] = DRAFTERS,
    draft_model: str = DRAFT_MODEL,
    host: str = typer.Option("127.0.0.1", help="Address to listen on; 0.0.0.0 is every one."),
    port: int = typer.Option(8000, help="0 takes a free one, which is printed."),
    served_model_name: list[str] = typer.Option([], metavar="NAME", help="What requests call it; may be repeated."),
    chat_template: Path = typer.Option(None, exists=True, dir_okay=False, help="In place of the model's own."),
    dtype: str = DTYPE,
    device: str = DEVICE,
    max_slowdown: float = typer.Option(
        MAX_SLOWDOWN, help="Share by which the guard lets decoding be slower than plain."
    ),
) -> None:
    """Serve a model over HTTP, as OpenAI's API has it."""
    try:
        import uvicorn

        from paceline.server import Settings, create_app
    except ImportError as error:
        raise ConfigError(f"serving needs {error.name}; allowed: after pip install 'paceline[server]'") from error
    loading = {"draft_model": draft_model, "dtype": dtype, "device": device, "max_slowdown": max_slowdown}
    with load_with_progress(model, drafters=parse_drafters(drafters), **loading) as llm:
        names = tuple(served_model_name) or (model or llm.runtime.loaded.name,)
        app = create_app(llm, Settings(names, chat_template=chat_template.read_text() if chat_template else None))
        uvicorn.run(app, host=host, port=port, timeout_keep_alive=120, log_level="warning")
