"""``ilab model evaluate`` and ``ilab evaluate``: what is measured, what is written, what is refused, exit codes."""

from __future__ import annotations

import csv
import gc
import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ilab.cli.app import main
from ilab.cli.evaluate_options import BENCHMARKS, OLD
from ilab.core.files import write_records
from ilab.data import Item
from ilab.errors import IlabError, InputError, ServiceError, SetupError

pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"
)  # the file of a run's events stays open until the process ends


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """What a caught error holds is let go while its warning is still expected."""
    yield
    gc.collect()


def question(number: int, split: str = "test", leaf: str = "knowledge/canal") -> Item:
    options = tuple(f"{number}{sign}" for sign in "wxyz")
    name = f"{leaf}/eval/{split}{number}"
    return Item(
        id=name,
        leaf=leaf,
        split=split,
        kind="mcq",
        question=f"What is {number}?",
        options=options,
        gold=options[number % 4],
        cluster=name,
    )  # type: ignore[arg-type]


@pytest.fixture
def here(tmp_path: Path, tiny_model: Path) -> Path:
    """A folder with a built project: held-out questions, a base and a chosen model (the same weights)."""
    latest = tmp_path / "store" / "latest"
    for step in ("base", "select-phase-2"):
        (latest / step).mkdir(parents=True)
        (latest / step / "model").symlink_to(tiny_model)
    write_records(latest / "items" / "items.jsonl", [*map(question, range(8)), question(90, "dev")])
    rows = [
        {"question": f"What is {n}?", "choices": ["a", "b", "c", "d"], "answer": n % 4, "subject": "law"}
        for n in range(7)
    ]
    for name, some in (("test", rows[:4]), ("dev", rows[4:])):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / f"{name}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in some), encoding="utf-8"
        )
    return tmp_path


def ilab(folder: Path, *arguments: str) -> Result:
    """The command with a store in ``folder``. An error of ours is the result's exception."""
    done = CliRunner().invoke(main, ["-C", str(folder), "--store", str(folder / "store"), *arguments])
    if done.exception is not None and not isinstance(done.exception, (IlabError, SystemExit)):
        raise done.exception
    return done


def measured(folder: Path, *arguments: str) -> Any:
    done = ilab(folder, "--json", "model", "evaluate", "--output-dir", "out", *arguments)
    assert done.exception is None, done.exception
    return json.loads(done.stdout)


def refused(folder: Path, *arguments: str) -> Any:
    return ilab(folder, "model", "evaluate", *arguments).exception


def test_mmlu_is_measured_and_written(here: Path, tiny_model: Path) -> None:
    arguments = ("--benchmark", "mmlu", "--model", str(tiny_model), "--test-set", "set", "--few-shots", "2")
    told = measured(here, *arguments)
    result = json.loads((here / "out" / "result.json").read_text())
    assert told["result"]["score"] == result["score"] == sum(row["score"] for row in result["rows"]) / 4
    assert told["result"]["low"] <= told["result"]["score"] <= told["result"]["high"]
    assert {row["details"]["shots"] for row in result["rows"]} == {2}
    assert "base" not in told
    before = (here / "out" / "result.json").read_bytes()
    assert measured(here, *arguments) == told
    assert (here / "out" / "result.json").read_bytes() == before  # check 22: the same bytes again
    shown = ilab(here, "evaluate", *arguments, "--output-dir", "out")  # the old spelling
    assert shown.stdout.startswith("# KNOWLEDGE EVALUATION REPORT\n\n## MODEL (SCORE)\n")
    assert "\nlaw - " in shown.stdout
    limited = measured(here, *arguments, "--limit", "2")
    assert limited["result"]["n"] == 2 and limited["result"]["notes"] == ["2 of 4 questions"]


def test_a_projects_own_questions_are_asked_of_its_model_and_its_base(here: Path) -> None:
    told = measured(here)
    assert told["result"]["benchmark"] == "leaves"  # what is measured where nobody says anything
    assert (told["result"]["model"], told["base"]["model"]) == ("select-phase-2", "base")
    assert told["result"]["n"] == 8
    [leaf] = told["comparison"]["leaves"]
    assert leaf["deltas"]["candidate"]["value"] == 0.0  # the same weights
    branch = measured(here, "--benchmark", "mmlu_branch", "--few-shots", "1", "--seed", "3")
    assert branch["result"]["n"] == 8
    data = json.loads((here / "out" / "mmlu_branch_data.json").read_text())
    assert data["trained_model_score"] == data["base_model_score"] == branch["result"]["score"]
    assert [entry["task"] for entry in json.loads(data["summary"])["no_changes"]] == ["knowledge/canal"]
    shown = ilab(here, "model", "evaluate", "--benchmark", "mmlu_branch", "--output-dir", "out").stdout
    assert "## BASE MODEL (SCORE)\nbase (" in shown and "### NO CHANGE" in shown


def test_answers_are_marked_and_cells_are_harmless(here: Path, tiny_model: Path) -> None:
    rows = [
        {"user_input": "What is 2+2?", "reference": "4", "response": "4"},
        {"user_input": "Who?", "reference": "Ada", "response": "=HYPERLINK(1)"},
    ]
    (here / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    asked = ("--benchmark", "dk_bench", "--input-questions", "q.jsonl", "--judge-model", "rule")
    told = measured(here, *asked, "--output-file-formats", "csv,jsonl")
    assert (told["result"]["score"], told["result"]["scale"]) == (3.0, [1.0, 5.0])
    with (here / "out" / "result.csv").open(newline="") as handle:
        assert [row["answer"] for row in csv.DictReader(handle)] == ["4", "'=HYPERLINK(1)"]
    assert {path.suffix for path in (here / "out").glob("*/results_*")} == {".csv", ".jsonl"}
    shown = ilab(here, "model", "evaluate", *asked, "--output-dir", "out").stdout
    assert "Question #1: 5/5\nQuestion #2: 1/5\nAverage Score: 3.00/5\nTotal Score: 6/10\n" in shown


def test_a_branch_of_a_taxonomy_is_read_without_touching_the_work_tree(here: Path, tiny_model: Path) -> None:
    leaf = here / "tax" / "compositional_skills" / "count"
    leaf.mkdir(parents=True)
    pairs = "".join(f"  - {{question: Count to {n}., answer: '{n}'}}\n" for n in range(5))
    (leaf / "qna.yaml").write_text(
        f"version: 3\ncreated_by: me\ntask_description: count\nseed_examples:\n{pairs}", encoding="utf-8"
    )
    git = ["git", "-c", "user.email=a@b", "-c", "user.name=x", "-c", "commit.gpgsign=false", "-C", str(here / "tax")]
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "one"], ["branch", "rc"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    (leaf / "qna.yaml").write_text("broken", encoding="utf-8")
    asked = ("--benchmark", "mt_bench_branch", "--taxonomy-path", "tax", "--branch", "rc", "--judge-model", "rule")
    told = measured(here, *asked, "--base-branch", "main")
    assert (told["result"]["n"], told["result"]["judge"]) == (5, "rule")
    assert [leaf["name"] for leaf in told["comparison"]["leaves"]] == ["compositional_skills/count"]
    assert (leaf / "qna.yaml").read_text() == "broken"
    data = json.loads((here / "out" / "mt_bench_branch_data.json").read_text())
    assert {"judge_model", "max_score", "error_rate", "trained_model_score"} <= data.keys()
    assert [one["task"] for one in data["summary_object"]["no_changes"]] == ["compositional_skills/count/qna.yaml"]
    few = measured(here, *asked, "--limit", "3")
    assert few["result"]["n"] == 3 and "3 of 5 questions" in few["result"]["notes"]
    missing = refused(here, *asked[:4], "--branch", "nothing", "--judge-model", "rule")
    assert isinstance(missing, InputError)


@pytest.mark.parametrize("benchmark", sorted(set(BENCHMARKS) - {"leaves"}))
def test_what_a_benchmark_needs_is_said_at_once(tmp_path: Path, benchmark: str) -> None:
    error = refused(tmp_path, "--benchmark", benchmark)
    assert isinstance(error, InputError) and error.exit_code == 2
    assert f"the benchmark {benchmark} requires --" in error.message
    assert not (tmp_path / "store").exists()  # nothing was begun


def test_what_cannot_be_measured_is_refused_with_what_to_do(here: Path, tiny_model: Path) -> None:
    mmlu = ("--benchmark", "mmlu", "--test-set", "set")
    assert "give the folder" in refused(here, *mmlu, "--model", "nobody/has-this").hint
    (here / "m.gguf").write_bytes(b"GGUF")
    assert "GGUF" in refused(here, *mmlu, "--model", "m.gguf").message
    (here / "file").write_text("x")
    assert "is a file" in refused(here, *mmlu, "--model", str(tiny_model), "--output-dir", "file").message
    for own in ("result.json", "result.csv", "base.json"):
        (here / "mine").mkdir(exist_ok=True)
        (here / "mine" / own).write_text("of a person")
        error = refused(here, *mmlu, "--model", str(tiny_model), "--output-dir", "mine")
        assert "no earlier result" in error.message and error.where.endswith(own)
        (here / "mine" / own).rename(here / "mine" / f"{own}.kept")
    served = refused(here, *mmlu, "--model", "name", "--endpoint-url", "http://127.0.0.1:9/v1")
    assert isinstance(served, InputError) and "folder" in served.message
    judged = ("--benchmark", "mt_bench", "--model", str(tiny_model), "--judge-model", "gpt")
    assert "ilab model serve" in refused(here, *judged).hint
    key = refused(here, *judged, "--judge-endpoint", "http://127.0.0.1:9/v1", "--judge-api-key", "sk-secret")
    assert isinstance(key, InputError) and "sk-secret" not in str(key)
    task = {"task": "t", "dataset_path": "json", "output_type": "loglikelihood_rolling"}
    (here / "t.yaml").write_text(json.dumps(task))
    error = refused(here, "--benchmark", "tasks", "--model", str(tiny_model), "--tasks-dir", "t.yaml")
    assert isinstance(error, (SetupError, ServiceError))  # ServiceError where the harness happens to be installed


def test_a_judge_that_does_not_answer_is_a_servers_fault(here: Path) -> None:
    (here / "q.jsonl").write_text(json.dumps({"user_input": "Q", "reference": "4", "response": "4"}) + "\n")
    asked = ("--benchmark", "dk_bench", "--input-questions", "q.jsonl", "--judge-model", "j")
    error = refused(here, *asked, "--judge-endpoint", "http://127.0.0.1:9/v1")
    assert isinstance(error, ServiceError) and error.exit_code == 4


def test_options_without_effect_say_why(here: Path, tiny_model: Path) -> None:
    asked = ("--benchmark", "mmlu", "--model", str(tiny_model), "--test-set", "set", "--few-shots", "0")
    old = (
        "--skip-server",
        "--gpus",
        "2",
        "--backend",
        "vllm",
        "--merge-system-user-message",
        "--enable-serving-output",
    )
    done = ilab(here, "model", "evaluate", *asked, *old, "--output-dir", "out")
    assert done.exception is None
    assert all(text in done.stderr for name, text in OLD.taken.items() if name != "--judge-backend")
    assert "has no meaning here" in refused(here, *asked, "--base-model-id", "x").message
    for wrong in (("--batch-size", "0"), ("--max-workers", "many"), ("--temperature", "2"), ("--limit", "0")):
        assert ilab(here, "model", "evaluate", *asked, *wrong).exit_code == 2


# -- questions -------------------------------------------------------------------------------------------------------


def rows(path: Path, content: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return str(path)


def test_questions_are_looked_at_and_mistakes_end_with_two(here: Path) -> None:
    done = ilab(here, "evaluate", "validate-items")
    assert done.exception is None and "9 questions, 9 without a flaw" in done.stdout
    good = {"question": "Who built the lock?", "options": ["Ada", "Bo"], "answer": "Ada"}
    bad = {"question": "When?", "options": ["1", "2"], "answer": "3"}
    path = rows(here / "i.jsonl", [good, bad, {"x": 1}])
    failed = ilab(here, "--json", "evaluate", "validate-items", path, "--output", "flaws.json")
    assert isinstance(failed.exception, InputError) and failed.exception.exit_code == 2
    assert failed.exception.message.startswith("1 of 2 questions")
    told = json.loads(failed.stdout)
    assert told["reasons"] == {"the answer is not among the options": 1}
    assert told["dropped"] == {"a row has no question": 1}
    assert json.loads((here / "flaws.json").read_text()) == told
    trained = rows(here / "train.jsonl", [{"messages": [{"role": "user", "content": "who built the lock"}]}])
    (here / "doc.md").write_text("The weir was built by Ada.")
    one = rows(here / "one.jsonl", [good])
    assert ilab(here, "evaluate", "validate-items", one, "--documents", "doc.md").exception is None
    assert ilab(here, "evaluate", "validate-items", one, "--training", trained).exception is not None
    unsure = ilab(here, "evaluate", "validate-items", one, "--documents", "q.md")
    assert isinstance(unsure.exception, InputError) and "no such file" in unsure.exception.message


def test_questions_are_exported_and_scored_the_same(here: Path, tiny_model: Path) -> None:
    done = ilab(here, "--json", "evaluate", "export-tasks", "tasks", "--seed", "5")
    told = json.loads(done.stdout)
    assert (told["tasks"], told["questions"]) == ({"knowledge_canal": 8}, 8)
    assert isinstance(ilab(here, "evaluate", "export-tasks", "tasks").exception, InputError)  # not empty any more
    own = measured(here, "--benchmark", "mmlu_branch", "--seed", "5", "--few-shots", "1")
    model = ("--model", str(tiny_model), "--tasks-dir", "tasks")
    tasks = measured(here, "--benchmark", "tasks", *model, "--few-shots", "1")
    assert tasks["result"]["score"] == own["result"]["score"]
    again = measured(
        here, "--benchmark", "mmlu_branch", *model, "--base-model", str(tiny_model), "--seed", "5", "--few-shots", "1"
    )
    assert again["result"]["score"] == own["result"]["score"]
