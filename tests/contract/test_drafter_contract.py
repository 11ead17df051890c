"""Every registered drafter that needs no options keeps the contract. A new one is covered by being registered."""

from __future__ import annotations

import pytest

import paceline
from contract.keeping import DrafterContract
from paceline.drafters import available


class TestRegisteredDrafter(DrafterContract):
    @pytest.fixture(params=sorted(available()))
    def spec(self, request: pytest.FixtureRequest, forced: paceline.LLM) -> str:
        try:
            forced._runtime.resolve(request.param)
        except paceline.ConfigError as error:
            pytest.skip(f"needs options, and has a subclass of DrafterContract beside its own tests: {error}")
        return str(request.param)
