"""The models that come with the package. Trained by recipes/tiny; each folder's README.md is its model card."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent
HEADS = ROOT / "heads"
DEFAULT_TARGET = "paceline-tiny"
DEFAULT_DRAFT = "paceline-tiny-draft"
PROMPTS = ROOT / "prompts.jsonl"
TASKS = ROOT / "tasks.jsonl"
COMMANDS = ROOT / "commands.jsonl"  # held-out spoken commands and their true answers, from SNIPS (CC0)


def bundled_names() -> list[str]:
    """Names that `paceline.load` knows without a hub."""
    return sorted(path.parent.name for path in ROOT.glob("*/config.json"))


def bundled_path(name: str) -> Path | None:
    """The folder of a bundled model, or None if there is no such model."""
    return ROOT / name if name in bundled_names() else None


def draft_model_of(target: str) -> str | None:
    """A bundled model that drafts for `target`, if there is one."""
    return DEFAULT_DRAFT if target == DEFAULT_TARGET else None


def is_bundled(path: object) -> bool:
    """True of a folder that comes with the package."""
    return isinstance(path, Path) and path.parent == HEADS


def block_head_of(target: str) -> Path | None:
    """The folder of a bundled head that drafts for `target`, if there is one."""
    folder = HEADS / f"{target}-block"
    return folder if target in bundled_names() and folder.is_dir() else None
