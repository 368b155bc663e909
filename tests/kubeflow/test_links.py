"""The dashboard is led from a run's model to its version in the Model Registry, once it is registered."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

pytest.importorskip("kfp")
pytest.importorskip("model_registry")
sys.path.insert(0, str(Path(__file__).parent.parent / "packaging"))
from on_kubeflow import shipped
from told import Kubeflow

from ilab.config import PackageWhere, Where
from ilab.core.store import RecordFile, Store
from ilab.kubeflow import tasks
from ilab.kubeflow.definition import defaults, definition
from ilab.packaging.registry import Entry
from ilab.packaging.sinks import Release, sinks_of
from ilab.parameters import collect
from ilab.testing.loopback import serving


def planned(folder: Path, **given: Any) -> Path:
    """The folder of a plan of the quickstart, as the task ``resolve`` writes it."""
    pipeline = shipped("quickstart")
    example = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "taxonomy"
    compiled = defaults({name: one.value for name, one in collect({"file": pipeline.parameters}).items()})
    where = tasks.Compiled(definition(pipeline), "dev", compiled, "", str(folder), "a-run", str(folder / "s"), ())
    tasks.resolve({**compiled, "sdg_repo_url": str(example), **given}, where, folder / "plan")
    return folder / "plan"


def register(plan: Path) -> Entry:
    """Make the step's artifact, as the task `Model Registration` does, and return what it told."""
    build = tasks._build(plan)
    step = build.plan.steps["register"]
    record = RecordFile(
        step="register", type=step.step.type, version=1, key=step.key, fields={}, inputs={}, input_digests={},
        digest="", counts={},
    )  # fmt: skip
    store = Store(build.loaded.store)
    with store.writing(record.type, record.key) as partial:
        store.publish(partial, record)
    values = build.plan.parameters
    return Entry(name=values["output_model_name"], version=values["output_model_version"], digest="sha256:a", uri="o")


def test_a_registered_model_is_linked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = Kubeflow()
    server.token = ""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    with serving(application) as url:
        given = {"output_model_registry_api_url": url, "output_model_registry_name": "models"}
        plan = planned(tmp_path, **given)
        assert tasks.links(plan) == {}, "the gate said no, or the run was stopped"
        entry = register(plan)
        for sink in sinks_of(Where(package=PackageWhere(model_registry=url))):
            sink.tell(Release(entry))
        links = tasks.links(plan)
        assert (links["modelRegistryName"], links["registeredModelName"]) == ("models", entry.name)
        assert (links["registeredModelId"], links["modelVersionId"]) == ("1", "1")
    assert tasks.links(plan) == {} and "not linked to the Model Registry" in capsys.readouterr().out
