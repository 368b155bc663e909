"""Strategies: which steps of a pipeline train on what, and that nothing else is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ilab.actions import find_pipeline
from ilab.core.pipeline import Pipeline, build, part, read_pipeline
from ilab.core.step import Found
from ilab.errors import InputError
from ilab.parameters import collect, derive
from ilab.steps import STEPS
from ilab.training.strategy import Training, needed, phases


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return read_pipeline(find_pipeline("instructlab", Path()), lambda name: find_pipeline(name, Path()))


def wiring(cut: Pipeline) -> dict[str, Any]:
    return {name: body.get("from", {}) for name, body in cut.steps.items()}


def keys(cut: Pipeline) -> dict[str, str]:
    given = {"sdg_repo_url": "t", "sdg_base_model": "b", "sdg_pipeline": "f"}
    values = {name: one.value for name, one in collect({"p": cut.parameters, "test": given}).items()}
    kinds = {mark.by for step in STEPS.values() for mark in step.resolvable().values()}
    resolvers = {kind: (lambda locator, kind=kind: Found(f"{kind}:{locator}", locator)) for kind in kinds}
    plan = build(cut, STEPS, derive(values), resolvers)
    return {name: one.key for name, one in plan.steps.items()}


def test_the_phases_of_the_shipped_pipeline(pipeline: Pipeline) -> None:
    first, second = phases(pipeline)
    assert (first.train, first.data, first.base) == ("train-phase-1", "mix-knowledge", "base")
    assert (second.train, second.data, second.base) == ("train-phase-2", "mix-skills", "select-phase-1")
    assert (second.evaluate, second.select) == ("evaluate-phase-2", "select-phase-2")


def test_without_a_strategy_it_is_the_build_up_to_the_last_choice(pipeline: Pipeline) -> None:
    """Same names, same keys: a build goes on from there, and nothing behind is part of it."""
    whole, cut = keys(pipeline), keys(Training().cut(pipeline))
    assert list(cut)[-1] == "select-phase-2" and "gate" not in cut
    assert cut == {name: whole[name] for name in cut}
    assert Training("lab-multiphase").cut(pipeline) == Training().cut(pipeline)


def test_two_files_are_two_phases_and_nothing_of_the_taxonomy(pipeline: Pipeline) -> None:
    cut = Training("lab-multiphase", ("/k", "/s")).cut(pipeline)
    assert wiring(cut) == {
        "base": {},
        "data-1": {},
        "train-1": {"dataset": "data-1", "base": "base"},
        "select-1": {"candidates": "train-1"},
        "data-2": {},
        "train-2": {"dataset": "data-2", "base": "select-1"},
        "select-2": {"candidates": "train-2"},
    }
    assert [cut.steps[name]["epochs"] for name in ("train-1", "train-2")] == [
        "$train_epochs_phase_1",
        "$train_epochs_phase_2",
    ]
    assert [cut.steps[name]["data"] for name in ("data-1", "data-2")] == ["/k", "/s"]


def test_a_project_s_questions_choose_between_the_phases_where_asked_for(pipeline: Pipeline) -> None:
    cut = Training("lab-multiphase", ("/k", "/s"), scored=True).cut(pipeline)
    assert cut.steps["select-1"]["from"] == {"candidates": "train-1", "evaluation": "evaluate-1"}
    assert cut.steps["evaluate-1"]["from"] == {"model": "train-1", "items": "items"}
    assert {"items", "taxonomy", "documents"} <= cut.steps.keys() and "generate" not in cut.steps
    keys(cut)  # it can be built


def test_skills_only_and_stacked_on_the_project_s_data(pipeline: Pipeline) -> None:
    """No phase 1, so no measure of it; the replay of it stays in skills-only, and is left out where all of it is in."""
    skills = Training("lab-skills-only").cut(pipeline)
    assert skills.steps["train"]["from"] == {"dataset": "data-2", "base": "base"}
    assert skills.steps["data-2"]["from"].keys() == {"samples", "earlier", "documents"}
    assert skills.steps["train"]["epochs"] == "$train_epochs_phase_2"
    both = Training("stacked").cut(pipeline)
    assert both.steps["data"]["from"] == {"datasets": {"mix-knowledge": "mix-knowledge", "data-2": "data-2"}}
    assert both.steps["data-2"]["from"].keys() == {"samples", "documents"}
    assert [name for name, body in both.steps.items() if body["step"] == "train"] == ["train"]
    whole = keys(pipeline)
    for cut in (keys(skills), keys(both)):
        assert cut["mix-knowledge"] == whole["mix-knowledge"] and cut["generate"] == whole["generate"]


def test_questions_are_asked_of_base_and_result(pipeline: Pipeline) -> None:
    cut = Training("single", ("/t",), questions="/q").cut(pipeline)
    assert cut.steps["answers"]["from"] == {
        "models": {"before": "base", "after": "select"},
        "questions": "questions",
    }
    assert list(keys(cut))[-1] == "answers"


def test_pipelines_that_cannot(pipeline: Pipeline) -> None:
    data = Pipeline("p", {}, {name: pipeline.steps[name] for name in part(pipeline, "generate").steps}, "p.yaml")
    with pytest.raises(InputError, match="no step of type 'train'"):
        Training().cut(data)
    one = Pipeline("p", {}, needed(pipeline.steps, ["train-phase-1"]), "p.yaml")
    with pytest.raises(InputError, match="trains in one phase"):
        Training("lab-multiphase", ("/a", "/b")).cut(one)
    with pytest.raises(InputError, match="no evaluation"):
        Training("single", ("/a",), scored=True).cut(one)
    assert Training("single", ("/a",)).cut(one).steps["select"] == {"step": "select", "from": {"candidates": "train"}}
