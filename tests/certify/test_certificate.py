"""A whole certificate through the command: its verdict, its files, its verification, its page in a browser."""

from __future__ import annotations

import copy
import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from paceline import LLM
from paceline.certify import run as certify_run
from paceline.certify.bytes import BytesResult
from paceline.certify.certificate import Agreement, Certificate, agreements, bytes_as_dict
from paceline.certify.control import Control
from paceline.certify.divergence import Divergence
from paceline.certify.page import claim, page
from paceline.certify.plan import CertifyPlan, plan_from, read_certificate
from paceline.cli import main
from paceline.drafters import available
from paceline.errors import ConfigError

ANY = next(name for name in available() if name in ("suffix", "recycle", "history"))  # one that needs no model

HOSTILE = "Once upon a time </script><script>window.hacked = 1</script> <b onclick='x'>&amp; a fox \u2028 {{ 7 * 7 }}"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def command(*args: str) -> int:
    """The exit code of the command, run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["paceline", *args])
        with pytest.raises(SystemExit) as ended:
            sys.exit(main())
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small certificate of the bundled pair."""
    folder = tmp_path_factory.mktemp("certificate")
    texts = [HOSTILE, "One day, Mia found a key. She asked her mom,", "Ben went to"]
    lines = [json.dumps({"category": "test", "prompt": text}) for text in texts]
    (folder / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    asked = ["--prompts", str(folder / "prompts.jsonl"), "--out", str(folder / "c.html")]
    small = ["--dtype", "float32", "--drafters", ANY, "--max-tokens", "16", "--seconds", "0.5", "--seed", "3"]
    assert command("certify", *asked, *small) == 0
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "c.json").read_text(encoding="utf-8"))


def test_the_certificate_says_what_was_compared(found: dict[str, Any]):
    assert found["verdict"] == "PASS"
    total = found["bytes"]["total"]
    assert total["decisions"] == total["equal_bits"] == total["equal_tokens"] > 100
    assert total["accepted_draft_tokens"] > 0
    assert found["bytes"]["num_comparisons"] == found["plan"]["sizes"]["comparisons"] >= len(found["bytes"]["ways"])
    assert {cell["case"] for cell in found["bytes"]["cells"]} == {case["name"] for case in found["bytes"]["cases"]}
    audit = found["law"]["audit"]
    assert audit["decisions"] == audit["equal"] + audit["ties"] == 32
    assert {draws["case"] for draws in found["law"]["draws"]} >= {"temperature 1", "top-k, top-p"}
    assert total["cached_tokens"] > 0
    assert found["plan"]["seed"] == 3
    assert not any("refix" in line for line in found["not_shown"])


CAUSES = {
    "attention in slot order": "arithmetic",
    "a stale cache row": "state",
    "penalties frozen over the draft": "law",
    "noise re-used at the wrong index": "law",
    "argmax fallback": "law",
    "a wrong page of the prefix cache": "state",
    "a sequence known by its first page": "state",
}


def test_every_planted_fault_is_found_with_its_cause(found: dict[str, Any]):
    assert {control["name"]: control["cause"] for control in found["controls"]} == CAUSES
    assert [control for control in found["controls"] if not control["is_caught"]] == []


def test_it_names_the_model_files_versions_and_the_numeric_path(found: dict[str, Any]):
    assert re.fullmatch("[0-9a-f]{64}", found["model"]["files"]["model.safetensors"])
    assert found["model"]["numerics"]["dtype"] == "float32"
    assert found["provenance"]["versions"].keys() >= {"paceline", "torch", "transformers"}
    assert found["seconds"]["total"] > 0


def test_the_page_holds_the_json(folder: Path, found: dict[str, Any]):
    assert read_certificate(folder / "c.html") == read_certificate(folder / "c.json") == found


def test_it_is_verified_from_its_page_and_not_overwritten(folder: Path, found, monkeypatch: pytest.MonkeyPatch):
    """The controls, which have their own tests, are taken as they were, for time."""
    monkeypatch.setattr(certify_run, "run_controls", lambda *args: [Control(**one) for one in found["controls"]])
    monkeypatch.chdir(folder)
    before = (folder / "c.html").read_bytes()
    assert command("certify", "--verify", "c.html") == 0
    assert (folder / "c.html").read_bytes() == before
    again = read_certificate(folder / "c-verified.json")
    assert {point["what"] for point in again["verification"]} >= {"verdict", "model files", "plain outputs and logits"}
    assert all(point["is_equal"] for point in again["verification"])
    assert "Beside the certificate that was verified" in (folder / "c-verified.html").read_text(encoding="utf-8")


def changed(found: dict[str, Any], *path: str, to: Any) -> dict[str, Any]:
    other = copy.deepcopy(found)
    place = other
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = to
    return other


def differing(then: dict[str, Any], now: dict[str, Any]) -> set[str]:
    return {point.what for point in agreements(then, now) if point.is_required and not point.is_equal}


def test_a_verification_fails_where_bytes_or_files_are_others(found: dict[str, Any]):
    assert not differing(found, found)
    assert differing(changed(found, "bytes", "fingerprint", to="x"), found) == {"plain outputs and logits"}
    longer = changed(found, "model", "files", "model.safetensors", to=found["model"]["files"]["config.json"])
    assert differing(longer, found) == {"model files"}
    assert differing(changed(found, "verdict", to="FAIL"), found) == {"verdict"}


def test_on_another_numeric_path_other_bytes_are_no_failure(found: dict[str, Any]):
    other = changed(changed(found, "bytes", "fingerprint", to="x"), "model", "numerics", "path", to="another")
    assert not differing(other, found)
    assert [p.what for p in agreements(other, found) if not p.is_equal] == [
        "numeric path and versions",
        "plain outputs and logits",
    ]


def certificate(
    *, is_equal: bool = True, is_right: bool = True, caught: tuple[bool, ...] = (True, True), is_shown: bool = True
) -> Certificate:
    controls = [Control(f"fault {i}", "", "same bytes", is_caught, "") for i, is_caught in enumerate(caught)]
    plan = CertifyPlan("m", "auto", "cpu", (), ("a",))
    compared = {"is_equal": is_equal, "ways": [{"name": "paced", "is_required": True, "is_shown": is_shown}]}
    return Certificate(plan, {}, {}, compared, {"is_right": is_right}, controls, {}, [], {})


def test_the_verdict():
    assert certificate().verdict == "PASS"
    assert certificate(is_equal=False).verdict == "FAIL"
    assert certificate(is_right=False).verdict == "FAIL"
    assert certificate(caught=(True, False)).verdict == "VOID"
    assert certificate(caught=()).verdict == "VOID"
    assert certificate(is_shown=False).verdict == "VOID"
    assert certificate(is_shown=False, is_equal=False).verdict == "FAIL"
    assert certificate(is_equal=False, caught=(False, False)).verdict == "FAIL"
    verified = certificate()
    verified.agreements = [Agreement("a", "1", "2", False, False)]
    assert verified.verdict == "PASS"
    verified.agreements.append(Agreement("b", "1", "2", False, True))
    assert verified.verdict == "FAIL"


def test_a_void_certificate_says_so(found: dict[str, Any]):
    void = changed(found, "verdict", to="VOID")
    void["controls"][2]["is_caught"] = False
    text = page(void)
    assert "This certificate is void." in text
    assert "NOT FOUND" in text
    assert void["controls"][2]["name"] in claim(void)
    assert "This certificate is void." not in page(found)


def test_a_row_that_showed_nothing_is_never_green(found: dict[str, Any]):
    """Its cells are dashed, the row says so, and so does the verdict; one that pacing needs makes it void."""
    idle = copy.deepcopy(found)
    for one in (*idle["bytes"]["ways"], *idle["bytes"]["cells"]):
        if "all, paced" in (one.get("name"), one.get("way")):
            one["is_shown"] = False
    idle["verdict"] = "VOID"
    row = page(idle).split(">all, paced</th>")[1].split("</tr>")[0]
    assert 'class="idle"' in row
    assert 'class="good"' not in row
    assert "not shown" in row
    assert "No draft was verified in all, paced: it shows nothing of pacing." in page(idle)
    assert claim(idle).endswith("in these rows: all, paced.")
    row = page(found).split(">all, paced</th>")[1].split("</tr>")[0]
    assert 'class="good"' in row
    assert "not shown" not in row


def test_the_default_certificate_exercises_pacing(found: dict[str, Any]):
    paced = [way for way in found["bytes"]["ways"] if way["is_required"]]
    assert [way["name"] for way in paced] == ["all, paced", "all, paced batch"]
    assert all(way["is_shown"] for way in paced)


def failing(found: dict[str, Any]) -> dict[str, Any]:
    """The same with a difference in it."""
    first = Divergence("some trees; greedy", 0, 3, 20, 7, "<i>", 8, " b", 0.5, 1e-3, 9, 2, "arithmetic", "other bits")
    compared = bytes_as_dict(BytesResult(divergence=first), [], [])
    wrong = changed(changed(found, "bytes", "divergence", to=compared["divergence"]), "verdict", to="FAIL")
    wrong["bytes"]["is_equal"] = False
    wrong["bytes"]["total"]["equal_bits"] -= 1
    return wrong


def test_a_failure_shows_the_first_divergence(found: dict[str, Any]):
    wrong = failing(found)
    text = page(wrong)
    for said in ("First divergence: arithmetic.", "token 3", "position 20", "&lt;i&gt;", "0.001"):
        assert said in text
    assert "1 rest on other logit bits" in claim(wrong)


def test_an_engine_with_a_fault_fails_with_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """The command on an engine whose cache is spoilt; the controls are left out for time."""
    from paceline.certify.controls import StaleRow

    load = certify_run.load

    def spoilt(*args: Any, **options: Any):
        llm = load(*args, **options)
        target, pacer = StaleRow(llm.target), llm.engine.pacer
        return LLM.from_target(target, llm.tokenizer, drafters="none", pacer=pacer, info=llm.info)

    monkeypatch.setattr(certify_run, "load", spoilt)
    monkeypatch.setattr(certify_run, "run_controls", lambda *args: [])
    out = tmp_path / "c.html"
    code = command("certify", "--drafters", "none", "--max-tokens", "16", "--seconds", "0.5", "--out", str(out))
    assert code == 1
    said = capsys.readouterr().out
    assert said.startswith("FAIL")
    assert "first divergence (state)" in said
    assert read_certificate(out)["bytes"]["divergence"]["cause"] == "state"
    assert 'id="divergence"' in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["paceline-tiny", "--verify", "x.html"], "both MODEL"),
        (["--verify", "none.html"], "cannot read 'none.html'"),
        (["--out", "c.pdf"], "--out is 'c.pdf'; allowed: a file ending in .html"),
        (["--out", "nowhere/c.html"], "a folder that exists"),
        (["--prompts", "none.jsonl"], "cannot read prompts from 'none.jsonl'"),
        (["--drafters", "sufix", "--seconds", "1"], "unknown drafter 'sufix'"),
        (["./nowhere"], "no model in the folder './nowhere'"),
        (["--max-tokens", "3"], "--max-tokens"),
        (["--dtype", "int3"], "dtype is 'int3'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_exit_code_2(args: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command("certify", *args) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_json_prints_the_object(folder: Path, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys):
    class Made:
        verdict = "VOID"

        def as_dict(self) -> dict[str, Any]:
            return found | {"verdict": "VOID"}

    monkeypatch.setattr(certify_run, "certify", lambda plan, tell: Made())
    monkeypatch.chdir(folder)
    assert command("certify", "--json", "--out", "void.html") == 1
    assert json.loads(capsys.readouterr().out)["verdict"] == "VOID"


def test_all_text_is_escaped(folder: Path, found: dict[str, Any]):
    text = (folder / "c.html").read_text(encoding="utf-8")
    assert "<script>window" not in text
    assert text.count("<script") == text.count("</script>") == 1  # the JSON
    assert html.escape(HOSTILE[:40], quote=False) in text.replace("&#39;", "'")
    evil = json.loads(json.dumps(found).replace("paceline-tiny", "<img src=x onerror=alert(1)>"))
    evil["controls"][0]["found"] = "</td><script>alert(2)</script>"
    made = page(evil)
    assert "<img" not in made
    assert "<script>alert" not in made


PROBE = """<script>
const text = document.body.innerText, wide = document.documentElement.scrollWidth;
const parts = [...document.querySelectorAll("section, header, .claim")];
const shown = parts.every(part => part.getBoundingClientRect().height > 20);
const seal = getComputedStyle(document.getElementById("verdict")), [ink, paper] = [seal.color, seal.backgroundColor];
document.body.innerHTML = "<pre id=probe></pre>";
document.getElementById("probe").textContent = JSON.stringify(
  {text, shown, overflow: wide - window.innerWidth, hacked: window.hacked ?? null, ink, paper});
</script>"""


def seen(file: Path, *, width: int = 1200, dark: bool = False) -> tuple[dict[str, Any], str]:
    """What a browser shows of a page, and what its console says."""
    probe = file.with_suffix(".probe.html")
    probe.write_text(file.read_text(encoding="utf-8").replace("</body>", PROBE + "</body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--window-size={width},1600"]
    options += ["--dump-dom", f"--user-data-dir={file.parent / 'profile'}", *(["--force-dark-mode"] if dark else [])]
    done = subprocess.run([CHROMIUM, *options, probe.as_uri()], capture_output=True, text=True, timeout=90)
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return json.loads(html.unescape(found.group(1))), console


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_browser_shows_the_page_and_its_console_is_clean(folder: Path, found: dict[str, Any]):
    what, console = seen(folder / "c.html")
    assert console == ""
    assert what["hacked"] is None
    assert what["shown"]
    assert what["overflow"] <= 0
    assert what["ink"] != what["paper"]
    text = " ".join(what["text"].split())
    assert text.startswith("PASS")
    total = f"{found['bytes']['total']['decisions']:,}"
    for said in (
        f"{total} of {total}",
        "Same bytes",
        "Right law",
        "Negative controls",
        "attention in slot order",
        "argmax fallback",
        "What this does not show",
        "prompt tokens found in the prefix cache",
        found["model"]["files"]["model.safetensors"],
        "temperature 1",
        f"{ANY} alone",
    ):
        assert said in text
    assert '"format"' not in text  # the JSON is not seen
    assert "a fox" not in text  # prompts are folded away


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_browser_shows_a_failure_on_a_narrow_screen(tmp_path: Path, found: dict[str, Any]):
    wrong = failing(found)
    (tmp_path / "f.html").write_text(page(wrong), encoding="utf-8")
    what, console = seen(tmp_path / "f.html", width=500, dark=True)
    assert console == ""
    assert what["overflow"] <= 0
    text = " ".join(what["text"].split())
    assert text.startswith("FAIL")
    assert 'Plain " b" (8), here "<i>" (7).' in text


def test_a_plan_read_from_a_page_is_the_plan_that_was_run(folder: Path, found: dict[str, Any]):
    plan = plan_from(read_certificate(folder / "c.html"))
    assert plan.prompts[0] == HOSTILE
    assert plan.drafters == (ANY,)
    with pytest.raises(ConfigError, match="format"):
        plan_from(changed(found, "format", to=0))
