"""The shipped pipeline as Kubeflow sees it. kfp warns at import of what it will change; that is its own affair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ilab.actions import find_pipeline
from ilab.core.pipeline import Pipeline, read_pipeline
from ilab.parameters import collect
from ilab.parameters.infrastructure import cluster

IMAGE = "registry.example/ilab:1.2.3"


def shipped(name: str = "instructlab") -> Pipeline:
    return read_pipeline(find_pipeline(name, Path()), lambda parent: find_pipeline(parent, Path()))


def made(pipeline: Pipeline, *, target: Any = None, **given: Any) -> Any:
    """The pipeline as kfp has it, with ``given`` parameters."""
    from ilab.kubeflow.definition import Target, kubeflow_pipeline

    layers = {pipeline.path: pipeline.parameters, "test": given}
    values = {name: one.value for name, one in collect(layers).items()}
    return kubeflow_pipeline(pipeline, values, cluster(values), target or Target(IMAGE))


def documents(pipeline: Any, folder: Path) -> list[dict[str, Any]]:
    """The two documents of the compiled file: PipelineSpec and PlatformSpec."""
    from ilab.kubeflow.definition import compile_to

    compile_to(folder / "pipeline.yaml", pipeline)
    return list(yaml.safe_load_all((folder / "pipeline.yaml").read_text()))
