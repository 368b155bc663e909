"""A tiny base, ten rows and a way to train on them, for all tests of the trainer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cluster_stub import Stub, certificates, serving
from tiny_training import ROWS, SETTINGS, Trains

from ilab.config import TrainWhere
from ilab.core.events import Bus
from ilab.models.renderer import Renderer
from ilab.training import cluster
from ilab.training.candidates import collect
from ilab.training.encode import EncodedSet, encode_samples, split_rows
from ilab.training.launch import run_job
from ilab.training.loop import TrainJob
from ilab.training.pieces import EncodeOptions
from ilab.training.records import of_row
from ilab.training.settings import TrainSettings
from ilab.training.tiny import TinySpec, make_tiny


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_tiny(folder, TinySpec(width=32, heads=2, feed_forward=64, vocabulary=400))
    return folder


@pytest.fixture(scope="session")
def data(base: Path) -> EncodedSet:
    return encode_samples(map(of_row, ROWS), Renderer.load(base), EncodeOptions(max_length=128))


@pytest.fixture
def trains(data: EncodedSet, base: Path) -> Trains:
    """Trains in ``folder`` (``out`` and ``work`` below it), or goes on there. Returns the index of the candidates."""

    usual = base

    def run(
        folder: Path,
        stopping: Callable[[], bool] = lambda: False,
        where: TrainWhere = TrainWhere(),  # noqa: B008 - frozen
        base: Path | None = None,
        **more: Any,
    ) -> list[dict[str, Any]]:
        for part in ("work", "out"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        settings = TrainSettings.model_validate({**SETTINGS, **more})
        kept, held_out = split_rows(data, settings.validation, settings.seed)
        emit = Bus().for_step("train")
        run_job(TrainJob(kept, held_out, base or usual, folder / "work", settings, emit, stopping, 1, where), "cpu")
        return collect(folder / "work", folder / "out")

    return run


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of the stub of an API server, and its key."""
    folder = tmp_path_factory.mktemp("keys")
    certificates(folder)
    return folder


@pytest.fixture
def stub(keys: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    """An API server that is looked at without waiting."""
    monkeypatch.setattr(cluster, "LOOK", 0.01)
    with serving(Stub(keys)) as made:
        yield made
