"""A pipeline file as a pipeline of Kubeflow: the same steps and edges, with what pods need beside them.

    importer ┐                       (the base model, for the lineage that the dashboard shows)
    resolve ─┴▶ one task per step, wired as the file wires them ─▶ results
    finish   runs at the exit, also of a run that failed

Resources come from what ``resolve`` found, so that a patched ConfigMap reaches them; the run's volume and the names of
Secrets are fixed when the run is made. How many GPUs there are is a matter of the run; *whether* a kind of pod has any
is fixed too, since a pod cannot ask for none of something. With several training workers (``train_num_workers``) the
task of a training makes a TrainJob and follows it; with one it trains itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from ilab.core.pipeline import Pipeline, sources
from ilab.errors import InputError
from ilab.kubeflow import components
from ilab.kubeflow.tasks import LOGINS, TAXONOMY
from ilab.parameters import TABLE
from ilab.parameters.files import CONFIG_MAP
from ilab.parameters.infrastructure import Cluster
from ilab.parameters.parameter import Environment

NAME = "instructlab"
VOLUME = "/ilab"  # where a claim of one's own is mounted
USUAL_RETRIES = 3
RETRIES = {"package": 1}  # a gate that said no ends here, says no again, and Kubeflow cannot tell that from a lost pod
TRAINS, MEASURES = ("train",), ("evaluate", "mt-bench", "mt-bench-branch", "answers")
# What Kubeflow's importer takes; a run fails with it for any other address. None yet: the form is to be filled in.
IMPORTED = ("s3://", "gs://", "minio://", "oci://", "huggingface://")
STAGES = {  # type of step -> stage of the overview
    "taxonomy": "Data Preparation",
    "documents": "Data Preparation",
    "items": "Data Preparation",
    "suite": "Data Preparation",
    "previous": "Data Preparation",
    "calibrate": "Data Preparation",
    "base": "Data Preparation",
    "generate": "SDG - Synthetic Data Generation",
    "compare": "Final Evaluation",
    "mt-bench": "Final Evaluation",
    "mt-bench-branch": "Final Evaluation",
    "gate": "Final Evaluation",
    "package": "Model Packaging",
    "push": "Model Packaging",
    "register": "Model Registration",
}
# Key of a Secret -> variable in the pod.
SECRETS = {
    "sdg_teacher_secret": {"api_token": "ILAB_TEACHER_TOKEN", "model_name": "ILAB_TEACHER_MODEL",
                           "endpoint": "ILAB_TEACHER_ENDPOINT"},
    "eval_judge_secret": {"api_token": "ILAB_JUDGE_TOKEN", "model_name": "ILAB_JUDGE_MODEL",
                          "endpoint": "ILAB_JUDGE_ENDPOINT"},
    "sdg_repo_secret": {"username": "GIT_USERNAME", "password": "GIT_PASSWORD"},
}  # fmt: skip
STORAGE_SECRET = {
    "AWS_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY": "AWS_SECRET_ACCESS_KEY",
    "AWS_S3_ENDPOINT": "AWS_ENDPOINT_URL_S3",
    "AWS_DEFAULT_REGION": "AWS_DEFAULT_REGION",
}  # a data connection of OpenShift AI has these keys


@dataclass(frozen=True)
class Target:
    """What a pipeline is compiled for.

    ``claim`` is a volume that is there; without one each run gets a workspace of its own. ``store`` is an address
    (``s3://…``), empty: a folder of the volume. ``given`` are the parameters that somebody gave to this very run: they
    go before the ConfigMap even where they equal a default. ``launcher`` is the kind of training jobs, empty: what the
    cluster knows. ``at_exit`` leaves the task `finish` out for ``kfp.local``.
    """

    image: str
    environment: Environment = "dev"
    claim: str = ""
    store: str = ""
    storage_secret: str = "storage-secret"  # noqa: S105 - the name that deploy/secrets gives it
    config_map: str = CONFIG_MAP
    given: tuple[str, ...] = ()
    launcher: Literal["", "TrainJob", "PyTorchJob"] = ""
    at_exit: bool = True


def inputs() -> dict[str, type]:
    """Name and type of every input of the run form. What may have no value is text, empty for none."""
    return {parameter.name: str if parameter.default is None else parameter.type for parameter in TABLE}


def defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` of all parameters as the run form holds them."""
    return {
        name: "" if values[name] is None else str(values[name]) if type_ is str else values[name]
        for name, type_ in inputs().items()
    }


def stage(name: str, type_: str) -> str:
    """What a task is called in the dashboard: the stage of the overview that it belongs to, and the step."""
    named = STAGES.get(type_)
    if named is None:
        last = name.startswith("score-")
        training = "Training Phase 2" if "2" in name or "skills" in name else "Training Phase 1"
        named = "Final Evaluation" if last else "Evaluation" if type_ in ("evaluate", "select") else training
    return f"{named}: {name}"


def definition(pipeline: Pipeline) -> str:
    """The graph as one file, which no other has to be found for."""
    whole = {"name": pipeline.name, "parameters": dict(pipeline.parameters), "steps": dict(pipeline.steps)}
    return yaml.safe_dump(whole, sort_keys=False)


def kubeflow_pipeline(pipeline: Pipeline, values: Mapping[str, Any], asked: Cluster, target: Target) -> Any:
    """The pipeline as kfp compiles, submits or runs it. ``values`` are the defaults of the run form.

    Raises InputError where a step's name cannot be a task's.
    """
    from kfp import dsl

    form = defaults(values)
    graph = _Graph(pipeline, form, asked, target)

    def body(**given: Any) -> None:
        graph.draw(given)

    kinds = inputs()
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature(
        [inspect.Parameter(name, keyword, annotation=kinds[name], default=form[name]) for name in kinds]
    )

    def called(*arguments: Any, **named: Any) -> None:
        body(**signature.bind(*arguments, **named).arguments)

    called.__signature__ = signature  # type: ignore[attr-defined]
    called.__name__ = NAME
    called.__doc__ = _documentation()
    workspace = None if target.claim else _workspace(asked)
    return dsl.pipeline(
        name=NAME,
        description="From a taxonomy to a registered model, in two training phases with evaluation between them.",
        pipeline_config=dsl.PipelineConfig(workspace=workspace),
    )(called)


def _documentation() -> str:
    lines = ["From a taxonomy to a registered model.", "", "Args:"]
    for parameter in TABLE:
        valid = f" Valid {parameter.valid}." if parameter.valid else ""
        needed = " Needed." if parameter.required else ""
        text = f"{parameter.help[:1].upper()}{parameter.help[1:]}.{valid}{needed}".replace("`", "'")
        lines.append(f"    {parameter.name}: {text}")
    return "\n".join(lines)


def _workspace(asked: Cluster) -> Any:
    from kfp import dsl

    patch: dict[str, Any] = {"accessModes": ["ReadWriteMany"]}
    if asked.storage_class:
        patch["storageClassName"] = asked.storage_class
    return dsl.WorkspaceConfig(size=asked.storage_size, kubernetes=dsl.KubernetesWorkspaceConfig(pvcSpecPatch=patch))


class _Graph:
    """Draws the tasks while kfp traces the pipeline's function."""

    def __init__(self, pipeline: Pipeline, form: Mapping[str, Any], asked: Cluster, target: Target) -> None:
        self._pipeline, self._form, self._asked, self._target = pipeline, form, asked, target
        types = {"cpu": str, "memory": str, "gpu": str, "gpus": str, "node_selector": dict, "tolerations": list}
        kinds = ("task", "evaluation", "training")
        self._outputs = {f"{kind}_{name}": type_ for kind in kinds for name, type_ in types.items()}

    def draw(self, given: Mapping[str, Any]) -> None:
        from kfp import dsl

        if not self._target.at_exit:
            self._tasks(given)
            return
        finish = self._component("finish", components.FINISH)(root=self._root(), run=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
        self._placed(finish, given, "Finish")
        with dsl.ExitHandler(finish):
            self._tasks(given)

    def _tasks(self, given: Mapping[str, Any]) -> None:
        from kfp import dsl

        if not self._form["sdg_base_model"] or self._form["sdg_base_model"].startswith(IMPORTED):
            model = dsl.importer(artifact_uri=given["sdg_base_model"], artifact_class=dsl.Model, reimport=False)
            model.set_display_name("Base Model")
        compiled = {
            "definition": definition(self._pipeline),
            "environment": self._target.environment,
            "defaults": dict(self._form),
            "config_map": self._target.config_map,
            "given": list(self._target.given),
            "launcher": self._target.launcher,
        }
        make = self._component("resolve", components.resolve_text(inputs(), self._outputs))
        root = self._root()
        resolve = make(
            **given,
            compiled=compiled,
            root=root,
            run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            store=self._target.store or f"{root}/store",
        )
        self._placed(resolve, given, "Data Preparation: resolve")
        made: dict[str, Any] = {}
        for name, step in self._ordered():
            task = self._component(*components.step_text(name))(plan=resolve.outputs["plan"], root=root)
            for source in sources(step.get("from") or {}):
                task.after(made[source])
            self._placed(task, given, stage(name, step["step"]))
            self._resources(task, resolve, step["step"])
            task.set_retry(
                num_retries=RETRIES.get(step["step"], USUAL_RETRIES), backoff_duration="60s", backoff_factor=2
            )
            made[name] = task
        results = self._component("results", components.RESULTS)(plan=resolve.outputs["plan"], root=root)
        last = made["gate"] if "gate" in made else list(made.values())[-1]
        self._placed(results.after(last), given, "Results")

    def _ordered(self) -> list[tuple[str, Mapping[str, Any]]]:
        steps = dict(self._pipeline.steps)
        done: dict[str, Mapping[str, Any]] = {}
        while steps:
            ready = [
                name for name, step in steps.items() if all(one in done for one in sources(step.get("from") or {}))
            ]
            if not ready:
                raise InputError(f"the steps {', '.join(steps)} wait for one another", where=self._pipeline.path)
            done |= {name: steps.pop(name) for name in ready}
        return list(done.items())

    def _component(self, name: str, text: str) -> Callable[..., Any]:
        from kfp import dsl

        made: Callable[..., Any] = dsl.component(
            components.function(name, text), base_image=self._target.image, install_kfp_package=False
        )
        return made

    def _root(self) -> str:
        from kfp import dsl

        return VOLUME if self._target.claim else str(dsl.WORKSPACE_PATH_PLACEHOLDER)

    def _placed(self, task: Any, given: Mapping[str, Any], title: str) -> None:
        """Volume, Secrets and title of a task; KFP's cache is off."""
        from kfp import kubernetes

        task.set_display_name(title)
        task.set_caching_options(enable_caching=False)
        if self._target.claim:
            kubernetes.mount_pvc(task, pvc_name=self._target.claim, mount_path=VOLUME)
        for parameter, keys in SECRETS.items():
            if self._form[parameter]:  # a Secret without a name would keep the pod from being made
                kubernetes.use_secret_as_env(
                    task, secret_name=given[parameter], secret_key_to_env=dict(keys), optional=True
                )
        for parameter, folder in (("sdg_repo_secret", TAXONOMY), ("output_oci_registry_secret", LOGINS)):
            if self._form[parameter]:
                kubernetes.use_secret_as_volume(
                    task, secret_name=given[parameter], mount_path=str(folder), optional=True
                )
        if self._target.storage_secret:
            kubernetes.use_secret_as_env(
                task, secret_name=self._target.storage_secret, secret_key_to_env=dict(STORAGE_SECRET), optional=True
            )

    def _resources(self, task: Any, resolve: Any, type_: str) -> None:
        from kfp import kubernetes

        here = self._asked.trainers == 1  # with more of them this pod only starts the others, and waits
        kind = "training" if type_ in TRAINS and here else "evaluation" if type_ in MEASURES else "task"
        pod = getattr(self._asked, kind)
        if pod.cpu:
            task.set_cpu_limit(resolve.outputs[f"{kind}_cpu"]).set_cpu_request(resolve.outputs[f"{kind}_cpu"])
        if pod.memory:
            memory = resolve.outputs[f"{kind}_memory"]
            task.set_memory_limit(memory).set_memory_request(memory)
        if pod.gpus:
            task.set_accelerator_type(resolve.outputs[f"{kind}_gpu"])
            task.set_accelerator_limit(resolve.outputs[f"{kind}_gpus"])
        kubernetes.add_node_selector_json(task, resolve.outputs[f"{kind}_node_selector"])
        kubernetes.add_toleration_json(task, resolve.outputs[f"{kind}_tolerations"])


def compile_to(path: Path, made: Any) -> None:
    """Write the IR of :func:`kubeflow_pipeline`'s result, the same bytes for the same pipeline."""
    from kfp import compiler

    compiler.Compiler().compile(made, str(path))
