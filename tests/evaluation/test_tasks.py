"""Task files from anywhere: what is read of them, what is left to the harness, and that none of them runs anything."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ilab.errors import InputError, SetupError
from ilab.evaluation.benchmarks import harness
from ilab.evaluation.benchmarks.harness import HarnessRun, run_harness, taken_over
from ilab.evaluation.benchmarks.task_files import NotNative, read_yaml
from ilab.evaluation.benchmarks.tasks import read_tasks, run_tasks

sys.path.insert(0, str(Path(__file__).parent))

from asked import close, site, told

ROWS = [{"question": f"What is {n}?", "choices": ["no", "yes"], "answer": n % 2} for n in range(5)]
TASK: dict[str, Any] = {
    "task": "t",
    "output_type": "multiple_choice",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "t.jsonl"}},
    "test_split": "test",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "answer",
}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Any]:
    made = site(tmp_path / "memo")
    yield made
    close(made)


def write(folder: Path, text: str = "", **changed: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    (folder / "t.yaml").write_text(json.dumps({**TASK, **changed}) + "\n" + text, encoding="utf-8")
    return folder


def refuse(prompts: Any, until: Any, most: Any) -> list[str | None]:
    raise AssertionError("nothing is to be written")


def test_a_task_is_run_and_its_metrics_are_told(tmp_path: Path, tiny_model: Path, here: Any) -> None:
    metrics = [{"metric": "acc_bytes"}, {"metric": "acc"}]
    [task] = read_tasks(write(tmp_path / "a", metric_list=metrics))
    scorer, _ = told(tiny_model, lambda _, option: -2.5 if option == " yes" else -2.0)
    result = run_tasks([task], "m", scorer, refuse, here)
    # "no" is likelier, "yes" is likelier by the byte (-2.5 / 3 against -2 / 2).
    assert [row.answer for row in result.rows] == ["yes"] * 5
    assert result.rows[0].details["metrics"] == {"acc_bytes": 0.0, "acc": 1.0}
    assert result.score == pytest.approx(2 / 5)
    assert len(read_tasks(tmp_path / "a", limit=2)[0].questions) == 2


def test_shots_of_the_same_file_never_hold_the_question(tmp_path: Path) -> None:
    [task] = read_tasks(write(tmp_path / "a", fewshot_split="test"), shots=4)
    for one in task.questions:
        prompt = task.prompt(one, "", False).plain
        assert prompt.count(one.asked) == 1 and prompt.count("What is") == 5
    assert any("other questions of the same file" in note for note in task.notes)
    [task] = read_tasks(write(tmp_path / "b"), shots=4)
    assert task.prompt(task.questions[0], "", False).shots == ()
    assert any("names no fewshot_split" in note for note in task.notes)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"output_type": "loglikelihood_rolling"}, "output_type"),
        ({"process_docs": "x"}, "process_docs"),
        ({"dataset_path": "cais/mmlu"}, "no local file"),
        ({"metric_list": [{"metric": "mcc"}]}, "metric is 'mcc'"),
        ({"metric_list": [{"metric": "acc", "aggregation": "f1"}]}, "metric"),
        ({"doc_to_text": "{{answer}}"}, "options stand in the question"),
        ({"doc_to_text": "{{question | regex_replace('a', 'b')}}"}, "regex_replace"),
        ({"fewshot_config": {"sampler": "first_n", "doc_to_text": "x"}}, "fewshot_config"),
        ({"output_type": "generate_until", "generation_kwargs": {"temperature": 0.7}}, "drawn at random"),
        ({"filter_list": [{"name": "f"}]}, "filter_list"),
    ],
)
def test_what_is_not_simple_is_left_to_the_harness(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotNative, match=reason):
        read_tasks(write(tmp_path / "a", **changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"doc_to_text": "{{question.__class__.__mro__}}"}, "may not do this"),
        ({"doc_to_text": "{{ ''.__class__ }}"}, "may not do this"),
        ({"doc_to_text": "{{ choices.append('x') }}"}, "may not do this"),
        ({"doc_to_text": "{{missing}}"}, "missing"),
        ({"doc_to_text": "{{question * 999999}}"}, "grows beyond"),
        ({"doc_to_target": "{{question}}"}, "is none of the 2 options"),
        ({"doc_to_choice": "{{question}}"}, "no list of texts"),
        ({"dataset_kwargs": {"data_files": {"test": "/etc/passwd"}}}, "questions are missing: passwd"),
        (
            {"dataset_kwargs": {"data_files": {"test": "../../t.jsonl"}, "x": 1}, "test_split": "dev"},
            "no file is named",
        ),
        ({"include": "../../etc/passwd"}, "no passwd beside it"),
        ({"include": "t.yaml"}, "circle"),
    ],
)
def test_a_task_from_elsewhere_reaches_nothing(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_tasks(write(tmp_path / "a", **changed))


def test_code_in_a_task_is_named_and_never_run(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('run')")
    path = tmp_path / "t.yaml"
    path.write_text("task: t\ndataset_path: json\nprocess_docs: !function evil.boom\n", encoding="utf-8")
    with pytest.raises(NotNative):
        read_tasks(path)
    path.write_text("task: !!python/object/apply:os.system ['true']\n", encoding="utf-8")
    with pytest.raises(InputError, match="not YAML"):
        read_yaml(path)
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="there is no task here"):
        read_tasks(tmp_path)


def test_without_the_harness_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "PACKAGE", "a-package-that-nobody-has")
    run = HarnessRun("m", tmp_path, ("t",))
    with pytest.raises(SetupError, match=r"needs lm-evaluation-harness: it uses process_docs") as caught:
        run_harness(run, "it uses process_docs")
    assert "ilab[harness]" in caught.value.hint


def test_the_harness_is_given_no_room_for_code_of_the_model(tmp_path: Path) -> None:
    words = HarnessRun("m", tmp_path, ("a", "b"), tmp_path, shots=5, limit=3).arguments(tmp_path / "out")
    told_ = dict(zip(words[4::2], words[5::2], strict=False))
    assert told_["--model_args"].endswith("trust_remote_code=False")
    assert (told_["--tasks"], told_["--num_fewshot"], told_["--limit"]) == ("a,b", "5", "3")
    assert "--use_cache" not in words  # it has answered for another model


def test_the_harness_results_become_ours() -> None:
    file = {
        "results": {
            "g": {"acc,none": 0.5},
            "a": {"alias": "a", "acc,none": 0.25, "acc_stderr,none": 0.1, "acc_norm,none": 1.0},
            "b": {"exact_match,strict": 0.75, "exact_match_stderr,strict": "N/A"},
            "p": {"word_perplexity,none": 12.5},
        },
        "group_subtasks": {"g": ["a", "b"], "a": []},
        "n-samples": {"a": {"original": 9, "effective": 4}, "b": {"effective": 12}, "p": {"effective": 1}},
    }
    result = taken_over(file, "m", "0.4.13")
    groups = [(group.name, group.score, group.standard_error, group.n) for group in result.groups]
    assert groups == [("a", 0.25, 0.1, 4), ("b", 0.75, None, 12)]
    assert (result.score, result.micro, result.n) == (0.5, pytest.approx((0.25 * 4 + 0.75 * 12) / 16), 16)
    assert result.notes == ("p: no metric between 0 and 1",)
