"""A certificate from a plan: load, compare, hold against the reference, plant faults, write down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from paceline.certify.bytes import LONG, BytesCheck, BytesResult, comparisons, least_coverage
from paceline.certify.certificate import Certificate, agreements, bytes_as_dict
from paceline.certify.control import Control
from paceline.certify.faults import run_controls
from paceline.certify.files import file_hashes
from paceline.certify.harness import Harness, Ids, prompt_room
from paceline.certify.law import LawCheck, LawResult
from paceline.certify.plan import LEAST_TOKENS, MOST_TOKENS, CertifyPlan, Sizes, cases_for, plan_from
from paceline.certify.reference import ReferenceModel
from paceline.certify.ways import Way, ways_for
from paceline.drafters import available
from paceline.errors import ConfigError, PacelineError, first_line
from paceline.llm import load
from paceline.model.loading import parse_device
from paceline.provenance import provenance

Progress = Callable[[str, float], None]  # what is being done, and the share of the whole that is behind us

_BYTES_UNTIL, _LAW_UNTIL = 0.5, 0.75  # shares of the time
_MOST_LAW_ROUNDS = 12
_LEAST_OUTPUTS = 60  # about so many does the least coverage decode, plain and speculative


def certify(plan: CertifyPlan, on_progress: Progress = lambda what, share: None) -> Certificate:
    """The certificate of a plan. Runs for about `plan.seconds`, or as long as the least coverage takes."""
    with _Certifier(plan, on_progress) as certifier:
        return certifier.run()


def verify(then: Mapping[str, Any], on_progress: Progress = lambda what, share: None) -> Certificate:
    """A certificate that runs the plan of an earlier one again, and says in what the two agree.

    Raises:
        ConfigError: the earlier one holds no plan.
    """
    plan = plan_from(then)
    certificate = certify(plan, on_progress)
    certificate.agreements = agreements(then, certificate.as_dict())
    return certificate


class _Certifier:
    """One run."""

    def __init__(self, plan: CertifyPlan, on_progress: Progress) -> None:
        self._plan, self._on_progress = plan, on_progress
        self._started = time.perf_counter()
        self._left_out: dict[str, str] = {}
        self._seconds: dict[str, float] = {}

    def __enter__(self) -> _Certifier:
        with self._timed("loading"):
            self._tell("loading")
            self._llm = load(
                self._plan.model,
                drafters="none",
                draft_model=self._plan.draft_model,
                dtype=self._plan.dtype,
                device=self._plan.device,
            )
            self._prompts = self._encode()
            if self._plan.max_tokens is None:
                self._plan = replace(self._plan, max_tokens=self._affordable_tokens())
            cases = cases_for(self._llm.target.vocab_size, self._prompts)
            self._cases = [case for case in cases if self._works(f"sampling: {case.name}", **case.sampling)]
            self._drafters = self._working_drafters()
        return self

    def __exit__(self, *exc: object) -> None:
        self._llm.close()

    def run(self) -> Certificate:
        """All parts, one after the other."""
        may_continue = self._prefill_is_decoding() and not self._reads
        ways = ways_for(self._drafters, self._cases, may_continue)
        harness = Harness(self._llm, self._plan.max_tokens or MOST_TOKENS)
        same = self._compare(harness, ways)
        law = self._hold_against_reference(harness)
        with self._timed("controls"):
            controls = self._plant()
        self._seconds["total"] = time.perf_counter() - self._started
        sizes = Sizes(same.num_comparisons, law.num_rounds)
        return Certificate(
            plan=replace(self._plan, drafters=tuple(self._drafters), sizes=sizes),
            model=self._model(),
            provenance=provenance(parse_device(self._plan.device)),
            bytes=bytes_as_dict(same, ways, self._cases),
            law=law.as_dict(),
            controls=controls,
            left_out=self._left_out,
            not_shown=not_shown(self._prefill_is_decoding(), same.total.cached_tokens > 0, self._reads),
            seconds={name: round(value, 1) for name, value in self._seconds.items()},
        )

    def _compare(self, harness: Harness, ways: Sequence[Way]) -> BytesResult:
        min_runs = len(least_coverage(ways, self._cases))
        sizes = self._plan.sizes

        def goes_on(result: BytesResult) -> bool:
            self._tell(f"same bytes: {result.total.decisions:,} decisions")
            done = result.num_comparisons
            return done < sizes.comparisons if sizes else done < min_runs or self._share() < _BYTES_UNTIL

        with self._timed("same bytes"):
            found = comparisons(ways, self._cases, self._prompts, self._plan.seed, min(LONG, self._room))
            return BytesCheck(harness, self._plan.seed).run(found, goes_on)

    def _hold_against_reference(self, harness: Harness) -> LawResult:
        sizes = self._plan.sizes

        def goes_on(result: LawResult) -> bool:
            self._tell(f"right law: {result.audit.decisions:,} decisions audited")
            done = result.num_rounds
            if sizes:
                return done < sizes.law_rounds
            return not done or (self._share() < _LAW_UNTIL and done < _MOST_LAW_ROUNDS)

        with self._timed("right law"):
            reference = ReferenceModel(self._plan.model, self._plan.dtype, self._plan.device)
            rounding = "blocks" if reference.is_quantized else self._llm.target.numerics()["dtype"]
            check = LawCheck(harness, self._cases, self._plan.seed, rounding)
            return check.run(self._prompts, reference, goes_on)

    def _plant(self) -> list[Control]:
        return run_controls(self._llm, self._plan, self._cases, self._prompts, self._tell)

    def _encode(self) -> list[Ids]:
        """The prompts' tokens; of one too long for the model only the end."""
        self._room = prompt_room(self._llm.target, self._plan.max_tokens or MOST_TOKENS)
        if self._room < 1:
            raise ConfigError(
                f"the model's context is {self._llm.target.max_length} tokens; --max-tokens leaves no prompt"
            )
        return [tuple(self._llm.encode(text)[-self._room :]) for text in self._plan.prompts]

    def _affordable_tokens(self) -> int:
        """Tokens of an output with which the least coverage takes about its share of the time."""
        seconds = []
        for _ in range(2):  # what is prepared at first use is prepared in the first
            started = time.perf_counter()
            self._try(ignore_eos=True)
            seconds.append((time.perf_counter() - started) / LEAST_TOKENS)
        affordable = _BYTES_UNTIL * self._plan.seconds / (_LEAST_OUTPUTS * min(seconds))
        return min(max(int(affordable), LEAST_TOKENS), MOST_TOKENS)

    def _working_drafters(self) -> list[str]:
        """Those that were asked for, or all that work with their default options."""
        asked = ("auto",) if self._plan.drafters is None else self._plan.drafters
        named = [name for name in asked if name != "auto"]
        for name in named:
            self._try(drafters=[name])
        others = [name for name in available() if name not in named] if "auto" in asked else []
        return named + [name for name in others if self._works(f"drafter: {name}", drafters=[name])]

    def _works(self, name: str, **options: Any) -> bool:
        try:
            self._try(**options)
        except PacelineError as error:
            self._left_out[name] = first_line(error)
            return False
        return True

    def _try(self, **options: Any) -> None:
        self._llm.generate(list(self._prompts[0][:8]), **{"max_tokens": LEAST_TOKENS, **options})

    def _prefill_is_decoding(self) -> bool:
        decoder = getattr(self._llm.target, "decoder", None)
        return bool(decoder is not None and decoder.is_exact_by_construction)

    @property
    def _reads(self) -> bool:
        """True if prompts are sources, which an encoder reads."""
        return self._llm.target.reads is not None

    def _model(self) -> dict[str, Any]:
        info, target = self._llm.info, self._llm.target
        assert info is not None  # `load` always says
        return {
            "name": self._plan.model,
            "architecture": info.architecture,
            "num_parameters": info.num_parameters,
            "vocab_size": info.vocab_size,
            "numerics": target.numerics(),
            "note": info.note,
            "files": file_hashes(self._plan.model),
        }

    def _share(self) -> float:
        return (time.perf_counter() - self._started) / self._plan.seconds

    def _tell(self, what: str) -> None:
        self._on_progress(what, min(self._share(), 0.99))

    @contextmanager
    def _timed(self, name: str) -> Any:
        started = time.perf_counter()
        yield
        self._seconds[name] = time.perf_counter() - started


def not_shown(prefill_is_decoding: bool, has_cached: bool, reads: bool = False) -> list[str]:
    """What nobody should read into a certificate."""
    found = [
        "Other prompts, parameters, seeds and lengths than those compared. These are samples, not a proof.",
        "Another machine, dtype, thread count or release. There the same tokens are not promised.",
        "Speed. paceline bench measures it.",
        "Faults that Paceline and the reference share: both run on PyTorch, and the architecture is the one that "
        "transformers describes.",
        "Of a quantised model, how far its blocks are from the weights that they were made of. The reference reads the "
        "same blocks as the kernels do.",
        "Grammars, stop strings and bad words against the reference, which lacks them. A grammar was compared plain "
        "against speculative.",
        "Presence and frequency penalties against transformers, which lacks them: they were held to their formula.",
    ]
    if not has_cached:
        found.append("Prefix-cache hits: the model's context holds no prompt of a whole page and more, 65 tokens.")
    if reads:
        found.append("Languages other than those that the tokenizer and the model's settings begin with.")
    if not prefill_is_decoding:
        found.append(
            "Requests continued from their own output: without the native kernels a prompt may be rounded otherwise "
            "than the same tokens decoded, so the two may part at near ties."
        )
    return found
