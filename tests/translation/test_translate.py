"""An encoder-decoder through the front door: languages, forced and forbidden tokens, drafts, command, server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import AutoTokenizer, M2M100ForConditionalGeneration

import paceline
from paceline import ConfigError, ContextLengthError, RequestError
from paceline.pacing import FixedPacer
from paceline.server import Settings, create_app
from server.running import running

TEXT = "Ein Mann mit 17 roten Hunden."


def generated(folder: Path, text: str, count: int, **options: object) -> list[int]:
    """What transformers makes of a text, after its first token."""
    tokenizer = AutoTokenizer.from_pretrained(folder, src_lang="deu_Latn")
    model = M2M100ForConditionalGeneration.from_pretrained(folder).eval()
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    settings = {"num_beams": 1, "do_sample": False, "max_new_tokens": count, **options}
    return model.generate(ids, **settings)[0].tolist()[1:]  # type: ignore[no-any-return]


def test_a_text_gives_what_transformers_gives(llm: paceline.LLM, folder: Path) -> None:
    """Two tokens that the settings forbid would stand in it otherwise, and the output ends where it ends there."""
    output = llm.generate(TEXT, max_tokens=40)
    assert list(output.token_ids) == generated(folder, TEXT, 40)
    free = generated(folder, TEXT, 40, bad_words_ids=[[100]])
    assert free[:3] == [53, 96, 96]
    assert list(output.token_ids) != free
    assert output.stats.num_prompt_tokens == len(llm.encode(TEXT)) + 1


def test_the_language_asked_for_is_the_first_token(llm: paceline.LLM, folder: Path) -> None:
    token = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("fra_Latn")
    output = llm.generate(TEXT, max_tokens=12, target_language="fra_Latn")
    assert [token, *output.token_ids] == generated(folder, TEXT, 13, forced_bos_token_id=token)
    assert output.token_ids != llm.generate(TEXT, max_tokens=12, target_language="eng_Latn").token_ids
    english = llm.generate(TEXT, max_tokens=12, source_language="eng_Latn")
    assert english.token_ids != llm.generate(TEXT, max_tokens=12).token_ids
    assert llm.tokenizer is not None
    assert llm.tokenizer.inner.src_lang == "deu_Latn"
    for name in ("source_language", "target_language"):
        with pytest.raises(RequestError, match=f"{name} is 'xx'; allowed: .*deu_Latn"):
            llm.generate(TEXT, **{name: "xx"})  # type: ignore[arg-type]


def test_an_earlier_translation_is_drafted_from(llm: paceline.LLM) -> None:
    plain = llm.generate(TEXT, max_tokens=40, min_tokens=40, drafters="none")
    drafted: dict[str, Any] = {"drafters": ["prediction"], "pacer": FixedPacer(9)}
    told = llm.generate(TEXT, max_tokens=40, min_tokens=40, **drafted, prediction=plain.token_ids)
    assert told.token_ids == plain.token_ids
    assert [t.logprob for t in told.tokens] == [t.logprob for t in plain.tokens]
    assert told.stats.num_accepted_draft_tokens > 20
    text = llm.generate(TEXT, max_tokens=4, **drafted, prediction="ab")
    assert text.stats.num_draft_tokens > 0


def test_what_cannot_be_read_is_refused(llm: paceline.LLM, bundled: paceline.LLM) -> None:
    with pytest.raises(ContextLengthError, match="the source has 400 tokens; allowed: up to 320"):
        llm.generate([5] * 400)
    with pytest.raises(RequestError, match="token id 131 is outside the vocabulary"):
        llm.generate([131])
    with pytest.raises(RequestError, match="the source is empty"):
        llm.generate([[]])
    with pytest.raises(RequestError, match="reads no source"):
        bundled.generate("Once", target_language="fra_Latn")
    with pytest.raises(ConfigError, match="target_language is 3"):
        llm.generate(TEXT, target_language=3)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="chat"):
        llm.chat([{"role": "user", "content": TEXT}])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "int8"}, "m2m_100 is an encoder-decoder, which int8"),
        ({"draft_model": ""}, "no source to draft from"),
    ],
    ids=str,
)
def test_what_translators_are_not_made_into_is_refused(folder: Path, options: dict[str, str], words: str) -> None:
    given = {name: value or str(folder) for name, value in options.items()}
    with pytest.raises(paceline.ModelError, match=words):
        paceline.load(str(folder), **given)  # type: ignore[arg-type]


def test_a_cache_that_source_and_output_do_not_fit_is_named(folder: Path) -> None:
    with paceline.load(str(folder), cache_tokens=1024) as small:
        assert small.info is not None
        assert "num_beams=4" in small.info.note
        assert len(small.generate([[5] * 300], max_tokens=200, ignore_eos=True)[0].token_ids) == 200


def test_the_command_translates_texts_files_and_standard_input(run, folder: Path, tmp_path: Path) -> None:
    given = ["--model", str(folder), "--max-tokens", "9"]
    one = run("translate", TEXT, *given, "--quiet")
    assert one.returncode == 0
    assert one.stdout.strip()
    (tmp_path / "texts").write_text(f"{TEXT}\n\nEin Hund.\n")
    (tmp_path / "earlier").write_text(one.stdout)
    lines = run("translate", "--file", str(tmp_path / "texts"), *given, "--prediction", str(tmp_path / "earlier"))
    assert lines.stdout.splitlines()[:2] == [one.stdout.rstrip("\n"), ""]
    assert len(lines.stdout.splitlines()) == 3
    told = json.loads(
        run("translate", "-", *given, "--json", "--prediction", str(tmp_path / "earlier"), stdin=TEXT).stdout
    )
    assert "prediction" in told["stats"]["drafters"]
    told = json.loads(run("translate", "-", *given, "--json", "--explain", stdin=TEXT).stdout)
    assert told["text"] == one.stdout.rstrip("\n")
    for wrong, words in ((["a", "--file", "b"], "both"), ([], "neither"), (["--file", "/none"], "--file")):
        refused = run("translate", *wrong, *given)
        assert refused.returncode == 2
        assert words in refused.stderr
    assert "reads no source" in run("translate", TEXT, "--model", "paceline-tiny").stderr


def test_the_completions_endpoint_translates(llm: paceline.LLM) -> None:
    body = {"model": "translator", "prompt": TEXT, "max_tokens": 9, "temperature": 0}
    with running(create_app(llm, Settings(("translator",)))) as url:
        answer = httpx.post(f"{url}/v1/completions", json=body).json()
        chat = {"model": "translator", "messages": [{"role": "user", "content": TEXT}]}
        refused = httpx.post(f"{url}/v1/chat/completions", json=chat)
    assert answer["choices"][0]["text"] == llm.generate(TEXT, max_tokens=9).text
    assert answer["usage"]["prompt_tokens"] == len(llm.encode(TEXT)) + 1
    assert refused.status_code == 400
    assert "template" in refused.json()["error"]["message"]
