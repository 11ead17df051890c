"""What vLLM makes by name: refused in words before it serves, and never a reason for vLLM to end."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from paceline.errors import ConfigError
from paceline.vllm import Drafter
from paceline.vllm.hints import MAX_PREDICTION, read_hints
from paceline.vllm.runner import check_version
from paceline.vllm.settings import Settings, made, read_settings

TOP_K = "vllm.v1.sample.ops.topk_topp_sampler"


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module of that name, as far as a drafter looks at it."""
    module, place = ModuleType("vllm"), ModuleType(TOP_K)
    module.__version__ = "0.32.0+cpu"  # type: ignore[attr-defined]
    place.apply_top_k_only = lambda logits, k: logits[: k.max()]  # type: ignore[attr-defined]
    for name in ("vllm", "vllm.v1", "vllm.v1.sample", "vllm.v1.sample.ops"):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, TOP_K, place)
    return module


class GPUModelRunner:
    """Makes a drafter as vLLM's does, of a configuration like vLLM's."""

    def __init__(self, additional: Any = None) -> None:
        self.requests: dict[str, Any] = {}
        self.input_batch = SimpleNamespace(req_ids=[])
        model = SimpleNamespace(
            get_vocab_size=lambda: 50, max_model_len=99, skip_tokenizer_init=True, model="m", dtype="d",
            quantization=None, served_model_name="m",
        )  # fmt: skip
        config = SimpleNamespace(
            model_config=model,
            speculative_config=SimpleNamespace(num_speculative_tokens=5),
            scheduler_config=SimpleNamespace(max_num_batched_tokens=64, max_num_seqs=3),
            parallel_config=SimpleNamespace(
                tensor_parallel_size=1, pipeline_parallel_size=1, rank=0, data_parallel_index=0
            ),
            device_config=SimpleNamespace(device_type="cpu"),
            additional_config={} if additional is None else {"paceline": additional},
        )
        self.drafter = Drafter(config)

    def step(self, *rows: list[int]) -> list[list[int]]:
        """Have drafts made behind some texts, each of which has just said its last token."""
        self.input_batch.req_ids = [str(i) for i in range(len(rows))]
        for i, tokens in enumerate(rows):
            params = SimpleNamespace(max_tokens=60, eos_token_id=None, stop_token_ids=[7], extra_args=None)
            self.requests.setdefault(str(i), SimpleNamespace(sampling_params=params, prompt_token_ids=tokens[:-1]))
        table = np.zeros((len(rows), 99), np.int32)
        for row, tokens in zip(table, rows, strict=True):
            row[: len(tokens)] = tokens
        return self.drafter.propose([tokens[-1:] for tokens in rows], np.array([len(t) for t in rows]), table)


def test_it_finds_whose_requests_it_drafts_for(vllm: ModuleType) -> None:
    runner = GPUModelRunner()
    text = [3, 4, 5, 6, 8, 9] * 2
    for size in range(5):
        time.sleep(0.01)  # vLLM's step, beside which drafting is quick
        drafts = runner.step([*text, *text[: size + 1]], list(range(10, 12 + size)))
    assert drafts == [text[5:10], []]  # costs are known by then, and it repeats itself


def test_made_by_anybody_else_it_says_so(vllm: ModuleType) -> None:
    with pytest.raises(ConfigError, match="made by no GPUModelRunner"):
        Drafter(SimpleNamespace(additional_config={}))


@pytest.mark.parametrize("version", ["0.30.2", "0.34.0", "1.0", "0.9.1.post1"])
def test_another_release_is_refused(vllm: ModuleType, version: str) -> None:
    vllm.__version__ = version  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=rf"vLLM is {version}; allowed: 0\.31 to 0\.33"):
        GPUModelRunner()
    for fine in ("0.31.0", "0.32.0+cpu", "0.33.1rc2"):
        check_version(fine)


def test_what_fails_is_logged_and_ends_drafting_alone(vllm: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, logged = GPUModelRunner(), []
    monkeypatch.setattr(logging.getLogger("vllm.paceline"), "exception", lambda text: logged.append(text))
    runner.step([3, 4, 5], [2, 3])
    monkeypatch.setattr(runner.drafter._turns, "take", lambda *_: 1 / 0)
    assert runner.step([3, 4, 5, 6], [2, 3, 4]) == [[], []]
    assert logged == ["Paceline failed; vLLM goes on without drafts."]
    assert REGISTRY.get_sample_value("paceline:failures_total", {"model_name": "m", "engine": "0"}) == 1
    monkeypatch.undo()
    assert runner.step([3, 4, 5, 6, 3], [2, 3, 4, 5]) == [[], []]


def test_top_k_of_no_rows_is_no_error(vllm: ModuleType) -> None:
    place = sys.modules[TOP_K]
    with pytest.raises(ValueError, match="zero-size"):
        place.apply_top_k_only(np.zeros((0, 4)), np.zeros(0))
    GPUModelRunner()
    GPUModelRunner()
    assert place.apply_top_k_only(np.zeros((0, 4)), np.zeros(0)).shape == (0, 4)
    assert place.apply_top_k_only(np.zeros((3, 4)), np.array([2, 1])).shape == (2, 4)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"draft": []}, "draft; allowed: drafters, max_slowdown"),
        ({"drafters": "suffix"}, "drafters is 'suffix'; allowed: a list"),
        ({"max_slowdown": "0.1"}, "max_slowdown is '0.1'; allowed: a number"),
        ({"max_slowdown": True}, "max_slowdown is True"),
        ([1], "allowed: an object"),
    ],
)
def test_settings_that_make_no_sense_are_refused(said: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings({"paceline": said})


def test_settings_may_be_left_out() -> None:
    assert read_settings({}) == read_settings(None) == Settings()
    assert read_settings({"paceline": {"max_slowdown": 0}, "another": 1}) == Settings(max_slowdown=0)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["recycle", "logitspec"], "logits"),
        (["block", "eagle", "medusa", "mtp"], "hidden states"),
        (["grammar", "model"], "the request's sampler"),
    ],
)
def test_drafters_that_need_more_than_tokens_are_refused(names: list[str], what: str) -> None:
    for name in names:
        said = f"^the drafter '{name}' reads {what}, and vLLM shows it tokens alone; allowed: "
        with pytest.raises(ConfigError, match=said + "corpus, history, prediction, suffix$"):
            made([name])
    assert made(["suffix:min_match=3"])[0].name == "suffix"


def test_hints_are_read_as_far_as_they_make_sense() -> None:
    tokenizer = SimpleNamespace(encode=lambda text, add_special_tokens: [len(text), int(add_special_tokens)])
    assert read_hints({"paceline_prediction": "abc", "paceline_tenant": 5}, tokenizer).prediction == (3, 0)
    assert read_hints({"paceline_tenant": 5}, None).tenant == "5"
    for nonsense in (None, 3, {"a": 1}, [1.0], ["a"], [True], "no tokenizer"):
        assert read_hints({"paceline_prediction": nonsense}, None).prediction == ()
    assert len(read_hints({"paceline_prediction": [1] * (MAX_PREDICTION + 5)}, None).prediction) == MAX_PREDICTION
