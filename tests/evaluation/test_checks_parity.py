"""Beside three other programs on the same questions (see lm_eval_checks.py): lm-evaluation-harness 0.4.13,
instructlab-eval 0.6.0, and inspect_ai 0.3.285 for the clustered standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ilab.evaluation.benchmarks.choices import Form
from ilab.evaluation.benchmarks.mmlu_branch import branch_of, run_mmlu_branch
from ilab.evaluation.benchmarks.tasks import Task, read_tasks, run_tasks
from ilab.evaluation.benchmarks.under_test import LocalUnderTest
from ilab.evaluation.prompts import Prompt
from ilab.evaluation.statistics import clustered_standard_error, mean_interval

sys.path.insert(0, str(Path(__file__).parent))

from asked import close, site
from lm_eval_checks import FORMS, LEAVES, MANY, RESULT, make, samples_of_clusters
from lm_eval_tasks import items, short, weights_hash

CLOSE = 1e-4
DUMP: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make(tmp_path_factory.mktemp("checks") / "made")
    for name in ("large", "model"):
        if weights_hash(folder / name) != DUMP[name]:
            pytest.fail("this torch draws other weights from the seed: run tests/evaluation/lm_eval_checks.py again")
    return folder


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    one = site(tmp_path_factory.mktemp("memo"))
    yield one
    close(one)


@pytest.fixture(scope="module")
def model(made: Path, here: Any) -> LocalUnderTest:
    return LocalUnderTest(made / "model", here)


def asked(path: Path, model: LocalUnderTest, here: Any, shots: int = 0, form: tuple[str, bool] = ("", False)) -> Any:
    return run_tasks(read_tasks(path, shots), "m", model.scorer(), model.writer(), here, form)


@pytest.mark.parametrize("form", ["letters", "texts"])
def test_250_questions_have_the_likelihoods_verdicts_and_errors_of_lm_eval(made: Path, here: Any, form: str) -> None:
    wanted = DUMP["many"][form]
    rows = asked(made / "many" / f"{form}.yaml", LocalUnderTest(made / "large", here), here).rows
    assert len(rows) == MANY
    for row, likelihoods in zip(rows, wanted["likelihoods"], strict=True):
        assert row.details["likelihoods"] == pytest.approx(likelihoods, abs=CLOSE)
    for metric in ("acc", "acc_norm", "acc_bytes"):
        mean = mean_interval([row.details["metrics"][metric] for row in rows], range(MANY))
        assert mean.mean == pytest.approx(wanted["scores"][metric], abs=1e-12)
        assert mean.standard_error == pytest.approx(wanted["scores"][f"{metric}_stderr"], abs=1e-12)


def text_of(prompt: Prompt, model: LocalUnderTest) -> str:
    return model.renderer.text(list(prompt.messages), True) if prompt.chat else prompt.plain


@pytest.mark.parametrize(("form", "shots", "chat", "system"), FORMS)
def test_prompts_are_the_strings_of_lm_eval_in_all_16_forms(
    made: Path, model: LocalUnderTest, here: Any, form: str, shots: int, chat: bool, system: str
) -> None:
    wanted = DUMP["few"][f"{form} {shots} {chat} {bool(system)}"]
    path = made / "few" / f"{form}.yaml"
    [task] = read_tasks(path, shots)
    prompts = [task.prompt(one, system, chat) for one in task.questions]
    assert text_of(prompts[0], model) == wanted["text"]
    assert [short(text_of(prompt, model)) for prompt in prompts] == wanted["prompts"]
    options = [[prompts[0].continuation(option) for option in one.options] for one in task.questions]
    assert short(json.dumps(options)) == wanted["options"]
    rows = asked(path, model, here, shots, (system, chat)).rows
    for row, likelihoods in zip(rows, wanted["likelihoods"], strict=True):
        assert row.details["likelihoods"] == pytest.approx(likelihoods, abs=CLOSE)


def test_leaves_of_instructlab_have_the_score_that_instructlab_gives_them(
    made: Path, model: LocalUnderTest, here: Any
) -> None:
    """Its total is the plain mean of leaves, as ours; the mean over all questions is another number, and called so."""
    wanted = DUMP["instructlab"]["sdg 0"]
    result = asked(made / "sdg", model, here)
    assert {group.name: group.n for group in result.groups} == LEAVES
    for group in result.groups:
        assert group.score == pytest.approx(wanted["leaves"][group.name]["score"], abs=1e-6)
        assert group.standard_error == pytest.approx(wanted["leaves"][group.name]["stderr"], abs=1e-6)
    assert result.score == pytest.approx(wanted["score"], abs=1e-6) == result.macro
    assert result.micro == pytest.approx(
        sum(LEAVES[name] * leaf["score"] for name, leaf in wanted["leaves"].items()) / sum(LEAVES.values()), abs=1e-6
    )
    assert abs(result.micro - result.macro) > 0.005 and "plain mean" in result.how


def test_our_leaves_have_the_same_score_when_instructlab_asks_them(model: LocalUnderTest, here: Any) -> None:
    wanted = DUMP["instructlab"]["ilab 0"]
    result = run_mmlu_branch(branch_of(items()), "m", model.scorer(), Form(shots=0), here, seed=7)
    assert result.score == pytest.approx(wanted["score"], abs=1e-6) == result.macro
    found = [group.score for group in result.groups if group.n]  # by name, as the tasks are
    assert found == pytest.approx([wanted["leaves"][name]["score"] for name in sorted(wanted["leaves"])], abs=1e-6)


def leaks(tasks: list[Task]) -> list[bool]:
    return [
        task.prompt(one, "", False).plain.count(one.asked) > 1
        for task in tasks
        if task.chooses
        for one in task.questions
    ]


def test_five_shots_show_no_question_of_ours_its_own_answer(made: Path) -> None:
    """Asked for 5 shots, lm-eval takes them from the questions themselves where a task has no others. Ours say 0."""
    there = DUMP["instructlab"]
    assert there["sdg 5"]["own question twice"] > 0  # so counting finds them
    assert there["ilab 5"]["own question twice"] == there["ilab 0"]["own question twice"] == 0
    assert there["ilab 5"] == there["ilab 0"]
    for folder in ("ilab", "sdg"):
        for shots in (0, 5):
            found = leaks(read_tasks(made / folder, shots))
            assert len(found) == there[f"{folder} {shots}"]["prompts"] and not any(found)


def test_clustered_standard_errors_are_those_of_inspect_ai() -> None:
    for (values, clusters), wanted in zip(samples_of_clusters(), DUMP["inspect"], strict=True):
        found = clustered_standard_error(values, clusters)
        if len(set(clusters)) == 1:
            assert wanted == 0.0 and found is None  # of one cluster nothing can be known: 0 would say certainty
        else:
            assert found == pytest.approx(wanted, abs=1e-12)
