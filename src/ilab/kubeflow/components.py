"""The components that tasks are started by: a few lines each, since what they do is in :mod:`ilab.kubeflow.tasks`.

kfp takes a component's source text and reads its interface from it. ``resolve`` has an input for every parameter, and
each step a component of its own, so that the dashboard shows names; the texts are therefore made here. Nothing of a
user's enters them: names come from the parameter table, and step names are checked.

Every component but ``secrets`` has the input ``root``, also where nothing reads it: Kubeflow mounts a run's workspace
only into tasks that have its path among their own inputs (``needsWorkspaceMount`` of its driver).
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ilab.errors import InputError

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
RESERVED = ("secrets", "resolve", "results", "finish", "importer")

SECRETS = '''
def secrets({inputs}, compiled: dict) -> NamedTuple("Outputs", {outputs}):
    """The Secrets that `resolve` reads, by name: Kubernetes makes no pod with one that has none."""
    from ilab.kubeflow.tasks import find_secrets

    found = find_secrets({form}, **compiled)
    return tuple(found[name] for name in {names})
'''
RESOLVE = '''
def resolve(
    {inputs}, compiled: dict, root: str, run: str, store: str, plan: dsl.Output[dsl.Artifact]
) -> NamedTuple("Outputs", {outputs}):
    """Parameters and everything outside of the run become a plan with a key for every step."""
    from pathlib import Path

    from ilab.kubeflow.tasks import Compiled, resolve as work

    form = {form}
    found = work(form, Compiled(**compiled, root=root, run=run, store=store), Path(plan.path))
    return tuple(found[name] for name in {names})
'''
STEP = '''
def {function}(plan: dsl.Input[dsl.Artifact], root: str):
    """The step {name} of the plan."""
    from pathlib import Path

    from ilab.kubeflow.tasks import run_step

    run_step(Path(plan.path), "{name}")
'''
RESULTS = '''
def results(
    plan: dsl.Input[dsl.Artifact],
    root: str,
    trained_model: dsl.Output[dsl.Model],
    evaluation_results: dsl.Output[dsl.Artifact],
    training_logs: dsl.Output[dsl.Artifact],
    artifacts: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],{output}
):
    """What the run gives: the model, its evaluation, the logs of training, plan and settings; figures and a report."""
    from pathlib import Path

    from ilab.kubeflow.tasks import Outputs, links, results as work

    paths = (trained_model.path, evaluation_results.path, training_logs.path, artifacts.path, report.path{path})
    for name, value in work(Path(plan.path), Outputs(*map(Path, paths))).items():
        metrics.log_metric(name, value)
    trained_model.metadata.update(links(Path(plan.path)))
'''
FINISH = '''
def finish(root: str, run: str, store: str, config_map: str, status: dsl.PipelineTaskFinalStatus):
    """Runs at the end, also of a run that failed: what was made, and where."""
    from ilab.kubeflow.kept import Kept
    from ilab.kubeflow.tasks import finish as work

    work(Kept(store, root, run), config_map, status.state, status.error_message or "")
'''


def function(name: str, text: str) -> Callable[..., Any]:
    """The function ``name`` of ``text``, with its source where :func:`inspect.getsource` looks for it."""
    from typing import NamedTuple

    from kfp import dsl

    file = f"<ilab component {name}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    found: dict[str, Any] = {"dsl": dsl, "NamedTuple": NamedTuple}
    exec(compile(text, file, "exec", dont_inherit=True), found)  # noqa: S102 - the texts above, filled with checked names
    made: Callable[..., Any] = found[name]
    return made


def resolve_text(inputs: Mapping[str, type], outputs: Mapping[str, type]) -> str:
    """The source of ``resolve`` with these inputs and outputs."""
    return _filled(RESOLVE, inputs, outputs)


def secrets_text(names: Iterable[str]) -> str:
    """The source of ``secrets``, which takes and gives text under these names."""
    kinds = dict.fromkeys(names, str)
    return _filled(SECRETS, kinds, kinds)


def _filled(text: str, inputs: Mapping[str, type], outputs: Mapping[str, type]) -> str:
    return text.format(
        inputs=", ".join(f"{name}: {kind.__name__}" for name, kind in inputs.items()),
        outputs="[" + ", ".join(f'("{name}", {kind.__name__})' for name, kind in outputs.items()) + "]",
        form="{" + ", ".join(f'"{name}": {name}' for name in inputs) + "}",
        names=tuple(outputs),
    )


def results_text(*, changelog: bool) -> str:
    """The source of ``results``; of a nightly run, which has a ``changelog``, its page is an output as well."""
    if not changelog:
        return RESULTS.format(output="", path="")
    return RESULTS.format(output="\n    changelog: dsl.Output[dsl.Markdown],", path=", changelog.path")


def step_text(name: str) -> tuple[str, str]:
    """(function, source) of the task of step ``name``. Raises InputError for a name that cannot be one."""
    if not NAME.fullmatch(name) or name in RESERVED:
        hint = "small letters, digits and single hyphens; not " + ", ".join(RESERVED)
        raise InputError(f"{name!r} cannot be the name of a task on Kubeflow", hint=hint)
    made = name.replace("-", "_")
    return made, STEP.format(function=made, name=name)
