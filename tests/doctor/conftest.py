"""A model with a vocabulary of its own."""

from __future__ import annotations

import pytest
import torch

from paceline.bench.models import random_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    random_model("tiny", torch.float32, torch.device("cpu")).save_pretrained(folder)
    return str(folder)
