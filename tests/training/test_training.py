"""Training goes on from any kill as if there had been none, and what is measured is what was trained."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from paceline.errors import ConfigError, ModelError
from paceline.heads.formats.speculators_dspark import read_head
from paceline.heads.transitions import TRANSITIONS
from paceline.training import anchors, loop, session
from paceline.training.anchors import Anchors
from paceline.training.block import BlockTrainee
from paceline.training.data import Document, Entry
from paceline.training.draft import DraftTrainee, small_config
from paceline.training.evaluate import DEPTH, Tally, distinct, evaluate
from paceline.training.loop import Budget, Run
from paceline.training.packing import Packed, pack
from paceline.training.recipe import Recipe, choices_of, read_choice, usual
from paceline.training.search import find
from paceline.training.warming import warm_up
from training import tiny

SMALL = {"block_size": 4, "rank": 4, "length": 32, "anchors": 6, "sequences": 3, "rate": 1e-2}


def written(target: LlamaForCausalLM, count: int, size: int = 24, seed: int = 0) -> list[Document]:
    """Continuations of two tokens by the target, every tenth held out."""
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, tiny.VOCABULARY, (count, 2), generator=draw)
    heats = torch.tensor([(0.0, 0.7, 1.0)[i % 3] for i in range(count)])[:, None]
    with torch.no_grad():
        while tokens.shape[1] < size:
            logits = target(input_ids=tokens).logits[:, -1]
            noise = -torch.log(-torch.log(torch.rand(logits.shape, generator=draw)))
            following = (logits + heats * noise).argmax(-1, keepdim=True)
            tokens = torch.cat([tokens, following], 1)
    entries = [Entry("text", i % 10 == 0, float(heats[i]), 2, size) for i in range(count)]
    return [Document(e, ids.astype(np.uint16)) for e, ids in zip(entries, tokens.numpy(), strict=True)]


@pytest.fixture(scope="module")
def target() -> LlamaForCausalLM:
    return tiny.target().requires_grad_(False)


@pytest.fixture(scope="module")
def texts(target: LlamaForCausalLM) -> tuple[list[Document], list[Document]]:
    documents = written(target, 100)
    return tuple([d for d in documents if d.entry.is_held_out == held_out] for held_out in (False, True))  # type: ignore


def begin_run(target: Any, texts: Any, folder: Path, kind: Any = BlockTrainee, **choices: Any) -> Run:
    about = {"choices": repr(choices)}
    return Run(kind(target, usual(target, **{**SMALL, **choices}), "tiny"), texts, folder, about)


@pytest.mark.parametrize(("kind", "optimizer"), [(BlockTrainee, "muon"), (DraftTrainee, "adamw")])
def test_a_run_that_was_killed_ends_as_one_that_was_not(
    tmp_path: Path, target: Any, texts: Any, kind: Any, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = partial(begin_run, optimizer=optimizer)
    whole = begin(target, texts, tmp_path / "whole", kind)
    whole.train(Budget(steps=30))
    killed = begin(target, texts, tmp_path / "killed", kind)

    def give_up(share: float, what: str) -> None:
        if share > 0.4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed.train(Budget(steps=30), give_up)
    assert 5 < killed.state.step < 25
    monkeypatch.setattr(loop, "save", lambda *a: (_ for _ in ()).throw(SystemExit))  # as a kill leaves the file
    again = begin(target, texts, tmp_path / "killed", kind)
    with pytest.raises(SystemExit):
        again.train(Budget(steps=30))
    monkeypatch.undo()
    last = begin(target, texts, tmp_path / "killed", kind)
    assert last.state.step == killed.state.step
    last.train(Budget(steps=30))
    assert last.state.step == 30
    for name, weight in whole._tensors().items():
        assert torch.equal(weight, last._tensors()[name]), name
    assert [(e["step"], e["tau"]) for e in last.state.history] == [(e["step"], e["tau"]) for e in whole.state.history]
    assert not list(tmp_path.rglob("*.part"))


def test_a_run_does_not_go_on_with_other_choices(tmp_path: Path, target: Any, texts: Any) -> None:
    begin_run(target, texts, tmp_path).train(Budget(steps=1))
    with pytest.raises(ConfigError, match=r"begun with choices .*--fresh"):
        begin_run(target, texts, tmp_path, rank=5)
    (tmp_path / "state.safetensors").write_bytes(b"\x80\x04")
    with pytest.raises(ConfigError, match="cannot go on"):
        begin_run(target, texts, tmp_path)
    with pytest.raises(ConfigError, match="0 to evaluate on"):
        begin_run(target, (texts[0], []), tmp_path / "other")


@pytest.mark.parametrize("loss", ["kl", "match"])
def test_training_brings_longer_steps(tmp_path: Path, target: Any, texts: Any, loss: str) -> None:
    run = begin_run(target, texts, tmp_path, loss=loss, weights="pace")
    torch.nn.init.zeros_(run.trainee.head.markov_head.markov_w2.weight)  # the texts' pairs, which it begins with
    before = evaluate(run.trainee, run._batches(run._tests), texts[1], 1).tau
    run.train(Budget(steps=80))
    scores = run.scores()
    assert scores.tau > before + 0.3
    run.write(tmp_path / "head")
    written_head = read_head(tmp_path / "head")
    assert written_head.config.taps == run.trainee.recipe.taps
    for name, weight in written_head.own_state().items():
        assert torch.equal(weight, run._best[name].to(weight.dtype)), name


def test_a_head_that_was_trained_goes_on_and_is_kept_where_it_stays_the_best(
    tmp_path: Path, target: Any, texts: Any
) -> None:
    first = begin_run(target, texts, tmp_path)
    first.train(Budget(steps=12))
    first.write(tmp_path / "head")
    head = read_head(tmp_path / "head")
    spoiling = usual(target, **{**SMALL, **choices_of(head.config), "rate": 1e3})
    trainee = BlockTrainee(target, spoiling)
    trainee.begin_with(head)
    run = Run(trainee, texts, tmp_path / "on", {})
    run.train(Budget(steps=3))
    assert run.state.history[0]["step"] == run.state.best_step == 0
    assert run.state.history[0]["tau"] == pytest.approx(first.state.best, abs=0.02)
    run.write(tmp_path / "same")
    for name, weight in read_head(tmp_path / "same").own_state().items():
        assert torch.equal(weight, head.own_state()[name]), name
    with pytest.raises(ModelError, match=r"another markov_head\S+, markov_head\S+, .* than can be trained here"):
        BlockTrainee(target, usual(target, **{**SMALL, "rank": 5})).begin_with(head)
    with pytest.raises(ModelError, match="another taps than"):
        BlockTrainee(target, usual(target, **{**SMALL, "taps": (0, 1)})).begin_with(head)


@pytest.mark.parametrize("kind", ["vanilla", "gated", "rnn"])
def test_a_transition_begins_with_what_follows_what(kind: str) -> None:
    """Of a text whose next token is a matter of the last one, the head knows most before its first step."""
    draw = np.random.default_rng(0)
    law = draw.dirichlet(np.full(tiny.VOCABULARY, 0.1), tiny.VOCABULARY)
    tokens = [0]
    for _ in range(6000):
        tokens.append(int(draw.choice(tiny.VOCABULARY, p=law[tokens[-1]])))
    texts = [Document(Entry("text", False, 1.0, 1, 6001), np.array(tokens, np.uint16))]
    transition = TRANSITIONS[kind](tiny.VOCABULARY, tiny.VOCABULARY, 12, tiny.WIDTH)
    assert warm_up(transition, texts, 0)
    before = torch.arange(tiny.VOCABULARY)[:, None]
    with torch.no_grad():
        given = transition.biases(torch.randn(tiny.VOCABULARY, 1, tiny.WIDTH), before)[:, 0].log_softmax(-1)
    weight = torch.from_numpy(law) * torch.from_numpy(np.bincount(tokens, minlength=tiny.VOCABULARY) / 6001)[:, None]
    known = -float((weight * torch.from_numpy(law + 1e-12).log()).sum())
    found = -float((weight * given).sum())
    assert known < found < known + 0.4 < np.log(tiny.VOCABULARY) - 1.0
    assert not warm_up(TRANSITIONS[kind](9000, 9000, 2, 4), texts, 0)


def test_what_is_shared_with_the_target_is_not_trained(target: Any, tmp_path: Path, texts: Any) -> None:
    before = {name: weight.clone() for name, weight in target.state_dict().items()}
    run = begin_run(target, texts, tmp_path)
    assert not [name for name in run.trainee.weights() if name.startswith(("embed_tokens", "lm_head"))]
    run.train(Budget(steps=3))
    assert all(torch.equal(weight, before[name]) for name, weight in target.state_dict().items())


class Oracle:
    """Knows what `counting` documents say at each proposal, or with `late` what they say one token later."""

    def __init__(self, depth: int, late: int = 0) -> None:
        self.depth, self.late = depth, late

    def logits(self, batch: Packed, chosen: Anchors) -> tuple[torch.Tensor, torch.Tensor]:
        before = batch.tokens.gather(1, chosen.before.flatten(1)).flatten()
        right, said = ((before + 3 + late) % tiny.VOCABULARY for late in (0, self.late))
        return tuple(30.0 * torch.nn.functional.one_hot(t, tiny.VOCABULARY).float() for t in (right, said))  # type: ignore


def counting(count: int, size: int, heat: float) -> list[Document]:
    rows = [(np.arange(size) * 3 + 5 * i) % tiny.VOCABULARY for i in range(count)]
    return [Document(Entry("count", True, heat, 2, size), row.astype(np.uint16)) for row in rows]


@pytest.mark.parametrize("heat", [0.0, 0.7])
@pytest.mark.parametrize(("depth", "late", "tau"), [(7, 0, 8.0), (3, 0, 4.0), (12, 0, 8.0), (7, 1, 1.0), (7, -1, 1.0)])
def test_who_knows_what_is_said_reaches_every_slot(heat: float, depth: int, late: int, tau: float) -> None:
    documents = counting(6, 20, heat)
    packed = pack(documents, 64)
    scores = evaluate(Oracle(depth, late), [packed], documents, 2)
    assert list(scores.tallies) == [("count", heat)]
    assert scores.tau == pytest.approx(tau, abs=1e-4)
    assert scores.tallies["count", heat].error == pytest.approx(0.0, abs=1e-3)


def test_a_transition_that_knows_the_next_token_is_read_at_the_right_slots(target: Any) -> None:
    """Label test: a head whose transition is the rule of the text is right everywhere; one token off, nowhere."""
    documents = counting(6, 24, 0.0)
    packed = pack(documents, 64)
    trainee = BlockTrainee(target, usual(target, **{**SMALL, "transition": "vanilla", "rank": tiny.VOCABULARY}))
    head = trainee.head
    torch.nn.init.zeros_(head.norm.weight)
    for late, share in ((0, 1.0), (1, 0.0)):
        rule = torch.eye(tiny.VOCABULARY).roll(3 + late, 0)
        with torch.no_grad():
            head.markov_head.markov_w1.weight.copy_(torch.eye(tiny.VOCABULARY))
            head.markov_head.markov_w2.weight.copy_(30.0 * rule)
        chosen = anchors.spread(packed, 1, 4)
        _, given = trainee.logits(packed, chosen)
        wanted = packed.tokens.gather(1, chosen.before.flatten(1) + 1).flatten()
        is_valid = chosen.is_valid.flatten()
        assert (given.argmax(-1) == wanted)[is_valid].float().mean() == share


def test_the_standard_error_is_that_of_the_mean() -> None:
    draw, tally, lengths = np.random.default_rng(0), Tally(), []
    for _ in range(5):
        chances = draw.random((20, DEPTH))
        tally.add(chances, chances)
        lengths += (1 + chances.cumprod(-1).sum(-1)).tolist()
    assert tally.tau == pytest.approx(np.mean(lengths))
    assert tally.error == pytest.approx(np.std(lengths) / 10)
    assert tally.merge(tally).tau == pytest.approx(tally.tau)


def test_text_that_repeats_itself_is_seen() -> None:
    loop_text = Document(Entry("a", True, 0.0, 1, 21), np.array([9, *[1, 2] * 10], np.uint16))
    assert distinct([loop_text], 2) == pytest.approx(2 / 19)


def test_a_draft_model_is_a_part_of_its_target(target: Any) -> None:
    config = small_config(target)
    assert config.num_hidden_layers == 1
    assert config.vocab_size == tiny.VOCABULARY
    assert config.hidden_size % config.num_attention_heads == 0


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("taps", "2,4,5", (2, 4, 5)),
        ("rank", "32", 32),
        ("rate", "1e-3", 1e-3),
        ("loss", "kl", "kl"),
        ("mix", "0:0.5,1:0.5", {0.0: 0.5, 1.0: 0.5}),
    ],
)
def test_choices_are_read_as_what_they_are(name: str, text: str, value: Any) -> None:
    assert read_choice(Recipe, name, text) == value


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("ranks", "3", "no 'ranks'; allowed: taps"),
        ("rank", "x", "a whole number"),
        ("taps", "2;4", "with commas"),
        ("mix", "1", "TEMPERATURE:SHARE"),
    ],
)
def test_choices_that_there_are_not_are_refused(name: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_choice(Recipe, name, text)


@pytest.mark.parametrize("fields", [{"loss": "mse"}, {"weights": "none"}, {"transition": "gru"}, {"length": 8}])
def test_recipes_that_there_are_not_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="allowed"):
        Recipe(**fields)


def test_an_order_is_checked_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="kind is 'eagle'; allowed: block, draft"):
        session.Order(tmp_path / "p", tmp_path, kind="eagle")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        session.Order(tmp_path / "p", tmp_path / "file")
    with pytest.raises(ConfigError, match="to go on from is given with kind 'draft'"):
        session.Order(tmp_path / "p", tmp_path, kind="draft", start=tmp_path)
    with pytest.raises(ConfigError, match="without --start"):
        find(session.Order(tmp_path / "p", tmp_path, start=tmp_path), lambda share, what: None)


def test_from_prompts_to_a_head_and_its_card(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n\n".join(f"Once upon a time number {i}" for i in range(12)))
    choices = {"length": 48, "sequences": 2, "anchors": 4, "rank": 0, "intermediate_size": 32, "block_size": 3}
    order = session.Order(prompts, tmp_path / "out", budget=Budget(steps=2), documents=16, choices=choices)
    told: list[tuple[float, str]] = []
    outcome = session.train(order, lambda *said: told.append(said))
    assert outcome.steps == 2
    assert read_head(tmp_path / "out").config.block_size == 3
    card = (tmp_path / "out" / "README.md").read_text()
    assert "paceline-tiny" in card
    for (kind, heat), tally in outcome.scores.tallies.items():
        assert f"| {outcome.walked[f'{kind} at {heat:g}']:.2f} | {tally.tau:.2f} |" in card
    assert json.loads((tmp_path / "out" / "figures.json").read_text())["tau"] == outcome.walked["all"]
    assert any("writes" in what for _, what in told)
    size = (tmp_path / "out" / "training" / "tokens.bin").stat().st_size
    assert size == 2 * outcome.num_tokens
    again = session.train(order)  # nothing is left to do
    assert again.scores.tau == outcome.scores.tau
