"""docs/server.md lists what the server has, and nothing else: endpoints, fields, errors, limits, metrics, options."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from paceline import LLM
from paceline.options import Options
from paceline.server import Settings, access, create_app, routes
from paceline.server import fields as classes
from paceline.server.errors import ApiError
from paceline.server.observing.catalogue import catalogue
from paceline.server.schemas.chat import ChatBody
from paceline.server.schemas.completion import CompletionBody
from paceline.server.schemas.messages import MessagesBody
from paceline.server.schemas.responses import ResponsesBody
from paceline.server.schemas.sampling import Body, SamplingBody
from paceline.server.schemas.tokens import DetokenizeBody, TokenizeBody
from paceline.server.settings import Limits
from paceline.server.shapes import metrics_of
from paceline.testing import ScriptedTarget

from .asking import ask

serve_module = importlib.import_module("paceline.cli.serve")  # the package has the command under this name
ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "server.md").read_text()
SOURCES = ROOT / "src" / "paceline" / "server"


def rows(title: str) -> list[list[str]]:
    """The cells of the rows of the first table after a heading."""
    table = PAGE.split(f"\n{title}\n", 1)[1].split("\n|", 1)[1].split("\n\n", 1)[0]
    lines = table.splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def names(cell: str) -> list[str]:
    """What a cell has in backquotes."""
    return re.findall(r"`([^`]+)`", cell)


def listed(title: str) -> list[str]:
    """The names in the first column of the table after a heading, each there once."""
    found = [name for row in rows(title) for name in names(row[0])]
    assert len(found) == len(set(found)), title
    return found


def test_every_endpoint_is_listed() -> None:
    modules = [
        importlib.import_module(f"{routes.__name__}.{one.name}") for one in pkgutil.iter_modules(routes.__path__)
    ]
    declared = [route for module in modules for route in module.router.routes]
    assert all(isinstance(route, APIRoute) for route in declared)
    there = {f"{method} {route.path}" for route in declared for method in route.methods}
    told = {f"{method} {path}" for name in listed("## Endpoints") for method, path in told_by(name)}
    assert told == there | {"GET /openapi.json", "HEAD /openapi.json"}


def told_by(name: str) -> list[tuple[str, str]]:
    *methods, path = name.replace(",", "").split(" ")
    return [(method, path) for method in methods]


BODIES = {
    "### Of all four": SamplingBody,
    "### Chat": ChatBody,
    "### Completions": CompletionBody,
    "### Responses": ResponsesBody,
    "### Messages": MessagesBody,
    "### Tokenize and detokenize": TokenizeBody,
}


def paths(body: type[Body]) -> Iterator[str]:
    """The names of the fields that a body declares itself, those inside of them behind a dot."""
    own = {name: field for name, field in body.model_fields.items() if name in body.__annotations__}
    for name, field in own.items():
        shown = field.alias or name
        yield shown
        for inner, is_list in inside(field.annotation):
            yield from (f"{shown}{'[]' if is_list else ''}.{path}" for path in paths(inner))


def inside(annotation: Any, is_list: bool = False) -> Iterator[tuple[type[Body], bool]]:
    """The bodies that a field may hold, and whether in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, is_list  # type: ignore[misc]
    for part in get_args(annotation):
        yield from inside(part, is_list or getattr(annotation, "__origin__", None) is list)


@pytest.mark.parametrize(("title", "body"), BODIES.items())
def test_every_field_is_listed(title: str, body: type[Body]) -> None:
    extra = set(paths(DetokenizeBody)) if body is TokenizeBody else set()
    assert set(listed(title)) == set(paths(body)) | extra


CLASSES = ("honoured", "harmless", "refused", "not yet", "unknown")


def of_class(title: str, kind: str) -> set[str]:
    """The fields of a class in the table after a heading."""
    return {name for row in rows(title) if row[1] == kind for name in names(row[0])}


@pytest.mark.parametrize("title", BODIES)
def test_every_field_has_a_class(title: str) -> None:
    assert {row[1] for row in rows(title)} <= set(CLASSES)


def neutral(field: FieldInfo) -> list[Any] | None:
    """The only values that a field may have, besides null; none if there are many."""
    parts = [part for part in get_args(field.annotation) or (field.annotation,) if part is not type(None)]
    if not parts or field.annotation is type(None):
        return []
    if not all(get_origin(part) is Literal for part in parts) and get_origin(field.annotation) is not Literal:
        return None
    values = [value for part in parts for value in (get_args(part) or (part,))]
    return values if len(values) == 1 else None


@pytest.mark.parametrize(("title", "body"), BODIES.items())
def test_fields_with_one_value_are_refused_and_their_neutral_value_is_told(title: str, body: type[Body]) -> None:
    own = {name: body.model_fields[name] for name in body.__annotations__ if name in body.model_fields}
    alone = {name: found for name, field in own.items() if (found := neutral(field)) is not None}
    assert of_class(title, "refused") >= set(alone)
    for row in rows(title):
        for name in set(names(row[0])) & set(alone):
            told = re.search("neutral: `([^`]+)`", row[2])
            assert told, name
            assert told[1] in {json.dumps(one).strip('"') for one in alone[name] or [None]}, name


@cache
def words_of_code() -> set[str]:
    """Every name and text in the server's code outside of the schemas, which declare and do nothing."""
    found: set[str] = set()
    for path in SOURCES.rglob("*.py"):
        if path.parent.name != "schemas":
            tree = ast.parse(path.read_text())
            found |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            found |= {
                node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
    return found


def test_honoured_fields_are_those_that_code_reads() -> None:
    code = words_of_code() | {"complete", "tool_call_id"}  # handed on with all that stands beside them
    for title in list(BODIES)[:5]:
        honoured = {path.split(".")[-1].removesuffix("[]") for path in of_class(title, "honoured")}
        unread = {name for name in honoured if not {name, f"{name}_"} & code}
        assert not unread, f"{title}: nothing reads {unread}"
        read = {path.split(".")[-1] for path in of_class(title, "not yet")} & code
        assert not read, f"{title}: {read} is read by now; say what it does"


def test_the_server_passes_on_all_that_the_library_has() -> None:
    elsewhere = {"regex", "choice", "logprobs"}  # in structured_outputs, and by endpoint
    told_apart = {"drafters", "tenant", "pacer"}  # speculation, cache_salt; there is one
    told_apart |= {"source_language", "target_language"}  # of translators, which the command line reads
    missing = set(get_type_hints(Options)) - set(SamplingBody.model_fields) - elsewhere - told_apart
    inside_others = {"num_speculative_tokens", "prompt_logprobs", "add_special_tokens"}  # speculation, by endpoint
    assert missing == inside_others


def test_harmless_and_refused_fields_are_listed() -> None:
    assert set(listed("### Harmless anywhere")) == set(classes.HARMLESS)
    assert set(listed("### Refused anywhere")) == set(classes.REFUSED)
    for row in rows("### Refused anywhere"):
        for name in names(row[0]):
            assert [json.loads(value) for value in names(row[1])] == list(classes.REFUSED[name]), name


def is_error(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ApiError"


def text_in(node: ast.AST) -> set[str]:
    return {one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)}


def errors_of(tree: ast.Module) -> set[tuple[str, str]]:
    """Statuses and codes of the errors that a module makes; `code_of` returns a code, which goes with 400."""
    found: set[tuple[str, str]] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "code_of":
            returned = [one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.value is not None]
            found |= {("400", one.body.value) for one in returned if isinstance(one, ast.IfExp)}  # type: ignore[attr-defined]
        elif is_error(node) and isinstance(node.args[0], ast.Constant):  # type: ignore[attr-defined]
            codes = [*node.args[3:4], *(key.value for key in node.keywords if key.arg == "code")]  # type: ignore[attr-defined]
            known = {text for code in codes if isinstance(code, ast.Constant) for text in text_in(code)}
            found |= {(str(node.args[0].value), code) for code in known or {""}}  # type: ignore[attr-defined]
    return found


def test_every_error_is_listed() -> None:
    made = {error for path in SOURCES.rglob("*.py") for error in errors_of(ast.parse(path.read_text()))}
    told = [(names(row[0])[0], *(names(row[1]) or [""])) for row in rows("## Errors")]
    assert len(told) == len(set(told))
    assert set(told) == made | {("405", "")}  # Starlette's own


def test_what_is_repeated_is_told() -> None:
    for row in rows("## Errors"):
        status = int(names(row[0])[0])
        stays = ApiError(status, "").headers.get("x-should-retry") == "false"  # type: ignore[union-attr]
        assert (row[3] == "yes") == (status in (429, 503)), status
        assert stays == ("x-should-retry: false" in row[2]), status


def test_every_limit_is_listed_with_its_default_and_its_option() -> None:
    told = {names(row[0])[0]: (row[1], names(row[2])) for row in rows("## Limits")}
    assert {name: default for name, (default, _) in told.items()} == {f.name: str(f.default) for f in fields(Limits)}
    source = inspect.getsource(serve_module)
    set_here = dict(
        re.findall(r'"(\w+)": (\w+)(?: \* 2\*\*20)?[,}]', source.split("limits: ", 1)[1].split("_settings(", 1)[0])
    )
    options = {name: [f"--{option.replace('_', '-')}"] for name, option in set_here.items()}
    assert {name: option for name, (_, option) in told.items() if option} == options
    unread = {name for name in told if name not in words_of_code()}
    assert unread == {names(row[0])[0] for row in rows("## Limits") if "not applied" in row[3]}


def test_every_metric_is_listed() -> None:
    told = [(names(row[0])[0], row[1], tuple(names(row[2]))) for row in rows("## Metrics")]
    assert told == [(metric.name, metric.kind, metric.labels) for metric in catalogue(1000)]


def test_the_figures_of_a_response_are_listed() -> None:
    figures = metrics_of([])
    listed_figures = {
        names(row[0])[0]: names(row[1])
        for row in rows("The names in `metrics` are vLLM's. Times are milliseconds, and null where there is none.")
    }
    assert set(listed_figures) == set(figures)
    assert set(listed_figures["speculative_decoding"]) == set(figures["speculative_decoding"])


def test_options_that_are_named_are_there() -> None:
    there = {f"--{name.replace('_', '-')}" for name in inspect.signature(serve_module.serve).parameters}
    text = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    assert set(re.findall(r"`(--[a-z-]+)", text)) - {"--help"} <= there


def test_paths_without_a_key_are_listed() -> None:
    line = PAGE.split("No key is needed for ", 1)[1].split(". ", 1)[0]
    assert set(names(line.split("\n\n")[0])) - {"OPTIONS"} == {*access._OPEN, access._OPEN_FOLDER}


def test_the_path_through_the_middleware_is_told_in_its_order() -> None:
    page = (
        (ROOT / "docs" / "architecture.md").read_text().split("## The life of a request", 1)[1].split("\n\n###", 1)[0]
    )
    target = ScriptedTarget(lambda history: np.zeros(50), 50, max_length=100)
    with LLM.from_target(target, drafters="none") as llm:
        app = create_app(llm, Settings(("m",), origins=("*",)))
    classes = [getattr(one.cls, "func", one.cls) for one in app.user_middleware]  # one is made with its options
    there = [cls.__name__ for cls in classes]
    assert [name for name in re.findall(r"^ {10}(\w+)", page, re.MULTILINE) if name in there] == there


def test_the_readmes_path_works_as_it_is_written(url: str, bundled: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    section = (ROOT / "README.md").read_text().split("## Serve it", 1)[1].split("\n## ", 1)[0]
    blocks = [
        block.replace("http://127.0.0.1:8000", url) for block in re.findall(r"```\w*\n(.*?)```", section, re.DOTALL)
    ]
    plain = bundled.generate("Once upon a time", max_tokens=20, temperature=0, drafters="none").text
    (command,) = [block for block in blocks if block.startswith("curl")]
    *_, content = shlex.split(command)
    assert ask(url, "/v1/completions", content.encode()).text == plain
    (program,) = [block for block in blocks if "openai" in block]
    exec(compile(program, "README.md", "exec"), {})
    assert capsys.readouterr().out == f"{plain}\n"
