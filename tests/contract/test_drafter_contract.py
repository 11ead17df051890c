"""Every registered drafter that needs no options keeps the contract. A new one is covered by being registered."""

from __future__ import annotations

import pytest

import paceline
from contract.keeping import DrafterContract
from paceline.drafters import available, make, named


class TestRegisteredDrafter(DrafterContract):
    @pytest.fixture(params=sorted(available()))
    def spec(self, request: pytest.FixtureRequest, forced: paceline.LLM) -> str:
        try:
            forced._runtime.resolve(request.param)
        except paceline.ConfigError as error:
            pytest.skip(f"needs options, and has a subclass of DrafterContract beside its own tests: {error}")
        return str(request.param)

    def test_all_that_it_drafts_goes_by_the_name_of_the_instance(self, spec: str, forced: paceline.LLM) -> None:
        drafter = named(make(spec), [spec])
        text = "One day a cat sat. One day a cat sat. One day a"
        outputs = [
            forced.generate(text, max_tokens=30, drafters=[drafter], prediction=" cat sat. One day a cat sat.", seed=3),
            forced.generate(text, max_tokens=30, drafters=[drafter], choice=[" cat sat on the mat.", " dog."]),
            forced.generate(text, max_tokens=30, drafters=[drafter], seed=3),
        ]
        for output in outputs:
            assert set(output.stats.drafters) <= {f"{spec}-2"}
            assert {token.source for token in output.tokens} <= {"target", f"{spec}-2"}
        assert sum(output.stats.num_draft_tokens for output in outputs) > 0
