"""``ilab model evaluate`` on a served model: the scores that the same model has in this process."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner

from ilab.cli.app import main
from ilab.core.files import write_records
from ilab.data import Item
from ilab.errors import IlabError, InputError, ServiceError
from ilab.serving.server import Server
from ilab.testing.judging import by_length
from ilab.testing.loopback import serving
from ilab.testing.teacher import serve

pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"
)  # the file of a run's events stays open until the process ends


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """What a caught error holds is let go while its warning is still expected."""
    yield
    gc.collect()


def item(number: int, **fields: Any) -> Item:
    name = f"knowledge/canal/eval/{number}"
    options = tuple(f"{number}{sign}" for sign in "wxyz")
    given = {"kind": "mcq", "options": options, "gold": options[number % 4], **fields}
    return Item(id=name, leaf="knowledge/canal", split="test", question=f"Number {number}?", cluster=name, **given)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    written = item(8, kind="free", options=(), gold="14 locks")
    write_records(tmp_path / "store/latest/items/items.jsonl", [*map(item, range(4)), written])
    (tmp_path / "set").mkdir()
    row = {"question": "What is 1?", "choices": ["a", "b", "c", "d"], "answer": 1, "subject": "law"}
    for name in ("test", "dev"):
        rows = [{**row, "question": f"What is {name} {n}?"} for n in range(3)]
        (tmp_path / "set" / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "d.jsonl").write_text("".join(json.dumps({"q": f"Say {n}.", "a": "x"}) + "\n" for n in "ab"))
    task = {
        "task": "t", "output_type": "generate_until", "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "d.jsonl"}}, "test_split": "test", "doc_to_text": "{{q}}",
        "doc_to_target": "{{a}}", "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
        "metric_list": [{"metric": "exact_match"}],
    }  # fmt: skip
    (tmp_path / "tasks" / "t.yaml").write_text(json.dumps(task))
    return tmp_path


def evaluate(folder: Path, *arguments: str) -> Any:
    """The rows of the result, or the error."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    words = ["-C", str(folder), "--store", str(folder / "store"), "model", "evaluate", "--output-dir", "out"]
    done = CliRunner().invoke(main, [*words, *arguments])
    if done.exception is not None:
        if not isinstance(done.exception, IlabError):
            raise done.exception
        return done.exception
    return json.loads((folder / "out" / "result.json").read_text())


BENCHMARKS = {
    "mmlu": ("--test-set", "set", "--few-shots", "2"),
    "mmlu_branch": ("--few-shots", "0", "--chat"),
    "tasks": ("--tasks-dir", "tasks"),
    "leaves": (),
}


def numbers(value: Any) -> list[float]:
    """All numbers in a row's details, in order."""
    if isinstance(value, dict):
        return [number for name in sorted(value) for number in numbers(value[name])]
    if isinstance(value, list):
        return [number for one in value for number in numbers(one)]
    return [float(value)] if isinstance(value, (int, float)) else []


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_served_model_scores_as_its_folder(here: Path, tiny_model: Path, local: Any, benchmark: str) -> None:
    asked = ("--benchmark", benchmark, *BENCHMARKS[benchmark])
    own = evaluate(here, *asked, "--model", str(tiny_model), "--base-model", str(tiny_model))
    with serving(Server(local, "tiny").application()) as address:
        url = f"{address}/v1"
        served = ("--model", "tiny", "--base-model", "tiny", "--endpoint-url", url, "--tokenizer", str(tiny_model))
        found = evaluate(here, *asked, *served)
    assert len(found["rows"]) == len(own["rows"]) > 0 and found["score"] == own["score"]
    for one, other in zip(found["rows"], own["rows"], strict=True):
        assert {**one, "details": 0} == {**other, "details": 0}
        assert numbers(one["details"]) == pytest.approx(numbers(other["details"]), abs=1e-4)


def test_what_is_needed_of_a_server_is_said(here: Path, tiny_model: Path, local: Any, tmp_path: Path) -> None:
    asked = ("--benchmark", "mmlu", "--test-set", "set", "--few-shots", "0", "--model", "tiny", "--endpoint-url")
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:2]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with serving(Server(local, "tiny").application()) as address:
        url = f"{address}/v1"
        missing = evaluate(here, *asked, url)
        wrong = evaluate(here, *asked, url, "--tokenizer", str(other))
        absent = evaluate(here, *asked[:-2], "nobody", "--endpoint-url", url, "--tokenizer", str(tiny_model))
    assert isinstance(missing, InputError) and "--tokenizer DIR" in missing.hint
    assert isinstance(wrong, ServiceError) and "not that of tiny" in wrong.message and "--tokenizer" in wrong.hint
    assert isinstance(absent, ServiceError) and "nobody" in str(absent)
    with serve(lambda body: "x", models=("tiny",)) as teacher:  # it serves chat alone
        unable = evaluate(here, *asked, teacher.url, "--tokenizer", str(tiny_model))
    assert isinstance(unable, ServiceError) and "log-probabilities" in unable.message


def test_a_server_that_names_other_tokens_is_refused(here: Path, tiny_model: Path) -> None:
    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "tiny"}]})

    async def complete(request: web.Request) -> web.Response:
        prompt = (await request.json())["prompt"]
        names = list(prompt) if isinstance(prompt, str) else [f"<{token}>" for token in prompt]
        logprobs = {"tokens": names, "token_logprobs": [-1.0] * len(names)}
        return web.json_response({"choices": [{"text": "", "logprobs": logprobs}]})

    application = web.Application()
    application.router.add_get("/v1/models", models)
    application.router.add_post("/v1/completions", complete)
    with serving(application) as address:
        url = f"{address}/v1"
        asked = ("--benchmark", "leaves", "--model", "tiny", "--endpoint-url", url, "--tokenizer", str(tiny_model))
        length = evaluate(here, *asked)
        error = evaluate(here, *asked, "--context-length", "256")
    assert isinstance(length, InputError) and "--context-length" in length.hint
    assert isinstance(error, ServiceError) and "reads the same text as other tokens" in error.message


def test_held_out_questions_are_marked_as_in_a_run(here: Path, tiny_model: Path) -> None:
    asked = ("--benchmark", "leaves", "--model", str(tiny_model))
    plain = evaluate(here, *asked)
    with serve(lambda body: by_length(body["messages"][-1]["content"]), models=("judge",)) as server:
        words = ("--judge-model", "judge", "--judge-endpoint", server.url)
        judged = evaluate(here, *asked, *words)
        calls = len(server.calls)
        assert evaluate(here, *asked, *words) == judged and len(server.calls) == calls == 2 * 5
    rows, before = ({row["id"]: row for row in one["rows"]} for one in (judged, plain))
    assert judged["judge"] == "judge" and any("5 of 5 answers marked" in note for note in judged["notes"])
    for name, row in rows.items():
        marks = row["details"]["marks"]
        assert (
            row["details"]["judge"] == pytest.approx((sum(marks) / 2 - 1) / 9, abs=1e-6) and row["details"]["judgment"]
        )
        written = row["details"]["kind"] == "free"
        assert row["score"] == (row["details"]["judge"] if written else before[name]["score"])
    assert "judge" not in before["knowledge/canal/eval/0"]["details"]
    rule = evaluate(here, *asked, "--judge-model", "rule")
    assert any("not by a language model" in note for note in rule["notes"])
