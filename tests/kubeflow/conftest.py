"""The shipped pipeline, compiled once."""

from __future__ import annotations

from typing import Any

import pytest
from on_kubeflow import documents, made, shipped


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return documents(made(shipped()), tmp_path_factory.mktemp("compiled"))
