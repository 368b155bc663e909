"""A pipeline file as a pipeline of Kubeflow: the same steps and edges, with what pods need beside them.

    secrets ─▶ resolve ─┬▶ one task per step, wired as the file wires them ─▶ results
                        └▶ importer  (the base model, for the lineage that the dashboard shows)
    finish   runs at the exit, also of a run that failed

Resources and Secrets come from what ``resolve`` found, so that a patched ConfigMap reaches them (its own Secrets from
``secrets``); the run's volume (:mod:`ilab.kubeflow.volume`) is fixed when the run is made. How many GPUs there are is a
matter of the run; *whether* a kind of pod has any is fixed too, since a pod cannot ask for none of something. With
several training workers (``train_num_workers``) the task of a training makes a TrainJob and follows it; with one it
trains itself.

Kubeflow's importer takes the address from an input of the graph that it stands in, only where it is not empty, and only
of some kinds. So it stands in a graph of its own, which there is where ``resolve`` found such an address.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from ilab.config import S3
from ilab.core import trust
from ilab.core.pipeline import Pipeline, sources
from ilab.errors import InputError
from ilab.kubeflow import components
from ilab.kubeflow.secret_names import MOUNTED, SECRETS, STORAGE, TOKENS
from ilab.kubeflow.tasks import FIXED, SHAPES
from ilab.kubeflow.volume import SEVERAL, machines
from ilab.parameters import TABLE
from ilab.parameters.files import CONFIG_MAP
from ilab.parameters.infrastructure import Cluster
from ilab.parameters.parameter import Environment
from ilab.training.pods import TOKEN_VARIABLES, TOKENS_SECRET

NAME = "instructlab"
VOLUME, OWN = "/ilab", "ilab-own"
AccessMode = Literal["ReadWriteOnce", "ReadWriteMany"]
# For lost pods: a server that is away is waited for by the task itself, and a user's mistake is the same one again.
USUAL_RETRIES, PAUSE = 2, "10s"
RETRIES = {"package": 1}  # a gate that said no ends here, says no again, and Kubeflow cannot tell that from a lost pod
TRAINS, MEASURES = ("train",), ("evaluate", "mt-bench", "mt-bench-branch", "answers")
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
    shape: Mapping[str, Any] = field(default_factory=dict)
    access_mode: AccessMode = "ReadWriteOnce"
    launcher: Literal["", "TrainJob", "PyTorchJob"] = ""
    at_exit: bool = True
    root: str = VOLUME

    @property
    def several(self) -> bool:
        """Whether several machines see the volume at once."""
        return self.access_mode == SEVERAL

    @property
    def apart(self) -> bool:
        """Whether tasks share no volume: the store is a bucket, and one machine trains."""
        return self.store.startswith(S3) and not self.claim and not self.several


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
    """The pipeline as kfp compiles, submits or runs it. ``values`` are the defaults of the run form, ``asked`` is what
    they and ``target.shape`` ask of the cluster.

    Raises InputError where a step's name cannot be a task's, or more machines shall train than see the volume.
    """
    from kfp import dsl

    form = defaults(values)
    asked, _ = machines(asked, target.several)
    fixed = {name: target.shape.get(name, form[name]) for name in (*FIXED, *SHAPES)}
    graph = _Graph(pipeline, form, asked, target, fixed)

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
    workspace = None if target.claim or target.apart else _workspace(asked, target.access_mode)
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


def _workspace(asked: Cluster, mode: AccessMode) -> Any:
    from kfp import dsl

    patch: dict[str, Any] = {"accessModes": [mode]}
    if asked.storage_class:
        patch["storageClassName"] = asked.storage_class
    return dsl.WorkspaceConfig(size=asked.storage_size, kubernetes=dsl.KubernetesWorkspaceConfig(pvcSpecPatch=patch))


class _Graph:
    """Draws the tasks while kfp traces the pipeline's function."""

    def __init__(
        self, pipeline: Pipeline, form: Mapping[str, Any], asked: Cluster, target: Target, fixed: Mapping[str, Any]
    ) -> None:
        self._pipeline, self._form, self._asked, self._target = pipeline, form, asked, target
        self._fixed = fixed
        types = {"cpu": str, "memory": str, "gpu": str, "gpus": str, "node_selector": dict, "tolerations": list}
        kinds = ("task", "evaluation", "training")
        self._outputs = {f"{kind}_{name}": type_ for kind in kinds for name, type_ in types.items()}
        self._outputs |= {**dict.fromkeys(SECRETS, str), "base_model": str}

    def draw(self, given: Mapping[str, Any]) -> None:
        from kfp import dsl

        if not self._target.at_exit:
            self._tasks(given)
            return
        finish = self._component("finish", components.FINISH)(
            root=self._root(),
            run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            store=self._store(),
            config_map=self._target.config_map,
        )
        self._placed(finish, None, "Finish")
        with dsl.ExitHandler(finish):
            self._tasks(given)

    def _tasks(self, given: Mapping[str, Any]) -> None:
        from kfp import dsl

        named = self._component("secrets", components.secrets_text(SECRETS))(
            **{name: given[name] for name in SECRETS},
            compiled={
                "config_map": self._target.config_map,
                "defaults": {name: self._form[name] for name in SECRETS},
                "given": [name for name in self._target.given if name in SECRETS],
            },
        )
        named.set_display_name("Data Preparation: secrets").set_caching_options(enable_caching=False)
        resolve = self._component("resolve", components.resolve_text(inputs(), self._outputs))(
            **given,
            compiled=self._compiled(),
            root=self._root(),
            run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            store=self._store(),
        )
        self._placed(resolve, named, "Data Preparation: resolve")
        with dsl.If(resolve.outputs["base_model"] != "", name="base-model"):
            model = dsl.importer(resolve.outputs["base_model"], artifact_class=dsl.Model, reimport=False)
            model.set_display_name("Base Model")
        made: dict[str, Any] = {}
        for name, step in self._ordered():
            task = self._component(*components.step_text(name))(plan=resolve.outputs["plan"], root=self._root())
            for source in sources(step.get("from") or {}):
                task.after(made[source])
            self._placed(task, resolve, stage(name, step["step"]))
            self._resources(task, resolve, step["step"])
            task.set_retry(
                num_retries=RETRIES.get(step["step"], USUAL_RETRIES), backoff_duration=PAUSE, backoff_factor=2
            )
            made[name] = task
        text = components.results_text(changelog="changelog" in made)
        results = self._component("results", text)(plan=resolve.outputs["plan"], root=self._root())
        last = next((made[name] for name in ("changelog", "gate") if name in made), list(made.values())[-1])
        self._placed(results.after(last), resolve, "Results")

    def _compiled(self) -> dict[str, Any]:
        """What ``resolve`` is told of how the pipeline was made; see :class:`ilab.kubeflow.tasks.Compiled`."""
        return {
            "definition": definition(self._pipeline),
            "environment": self._target.environment,
            "defaults": dict(self._form),
            "config_map": self._target.config_map,
            "given": list(self._target.given),
            "fixed": dict(self._fixed),
            "several": self._target.several,
            "launcher": self._target.launcher,
        }

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

        shared = not self._target.claim and not self._target.apart
        return str(dsl.WORKSPACE_PATH_PLACEHOLDER) if shared else self._target.root

    def _store(self) -> str:
        return self._target.store or f"{self._root()}/store"

    def _placed(self, task: Any, named: Any, title: str) -> None:
        """Title, volume, certificates and Secrets of a task; KFP's cache is off.

        ``named`` is the task that found the Secrets' names; None: those that parameters name are not needed.
        """
        from kfp import kubernetes

        task.set_display_name(title)
        task.set_caching_options(enable_caching=False)
        target, bundle = self._target, trust.CONFIG_MAP
        if target.claim:
            kubernetes.mount_pvc(task, pvc_name=target.claim, mount_path=target.root)
        elif target.apart:
            kubernetes.add_ephemeral_volume(
                task,
                volume_name=OWN,
                mount_path=target.root,
                access_modes=[target.access_mode],
                size=self._asked.storage_size,
                storage_class_name=self._asked.storage_class or None,
            )
        kubernetes.use_config_map_as_volume(task, bundle, mount_path=str(trust.BUNDLE), optional=True)
        kubernetes.use_secret_as_volume(task, TOKENS_SECRET, mount_path=str(TOKENS), optional=True)
        tokens = dict(zip(TOKEN_VARIABLES, TOKEN_VARIABLES, strict=True))
        variables: list[tuple[Any, dict[str, str]]] = [(TOKENS_SECRET, tokens), (target.storage_secret, STORAGE)]
        variables += [(named.outputs[parameter], keys) for parameter, keys in SECRETS.items()] if named else []
        for secret, keys in variables:
            if secret and keys:
                kubernetes.use_secret_as_env(task, secret, secret_key_to_env=keys, optional=True)
        for parameter, folder in MOUNTED.items() if named else ():
            kubernetes.use_secret_as_volume(task, named.outputs[parameter], mount_path=str(folder), optional=True)

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
