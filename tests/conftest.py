"""Shared fixtures. Models are tiny and random, built from a configuration: no download, no GPU."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for the network is a bug

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _quiet_threads() -> None:
    torch.set_num_threads(min(2, os.cpu_count() or 1))
