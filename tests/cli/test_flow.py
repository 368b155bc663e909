"""``ilab flow``: through the command itself, against a real server on loopback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ilab.cli.app import Options
from ilab.cli.flow import group
from ilab.errors import InputError, InputErrors, ServiceError
from ilab.testing.teacher import Teacher, serve

FLOW = """\
name: mine
version: 1
branches:
  pairs:
    input: chunk
    blocks:
      - type: llm
        name: write
        prompt: ask.txt
        tags: {question: QUESTION, answer: ANSWER}
      - type: judge
        prompt: judge.txt
        tags: {why: WHY, verdict: VERDICT}
        explanation: why
        scale: [1, 3]
        threshold: 0.5
"""


@pytest.fixture(autouse=True)
def _no_event_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of a run's events stays open until the process ends, and here one process has many runs."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "flow").mkdir()
    (tmp_path / "flow" / "knowledge.yaml").write_text(FLOW)
    (tmp_path / "flow" / "ask.txt").write_text("ASK {{ document }}")
    (tmp_path / "flow" / "judge.txt").write_text("JUDGE {{ question }} {{ answer }}")
    rows = [{"document": f"text {n}", "extra": n} for n in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def ilab(folder: Path, *arguments: str, as_json: bool = False) -> Result:
    options = Options(folder, (), str(folder / "store"), as_json, False)
    return CliRunner().invoke(group, list(arguments), obj=options, catch_exceptions=True)


def script(body: dict[str, Any]) -> str:
    text = body["messages"][-1]["content"]
    if text.startswith("JUDGE"):
        return f"[WHY]as it is[/WHY][VERDICT]{1 if 'text 3' in text else 3}[/VERDICT]"
    return f"[QUESTION]What is {text[4:]}?[/QUESTION][ANSWER]It is {text[4:]}.[/ANSWER]"


def run(folder: Path, teacher: Teacher, *more: str) -> Result:
    where = ["--endpoint-url", teacher.url, "--model", "teacher"]
    return ilab(folder, "run", "flow", "--input", "rows.jsonl", "--output", "out.jsonl", *where, *more)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_run_writes_rows_and_refused_rows_and_asks_nothing_twice(project: Path) -> None:
    with serve(script) as teacher:
        result = run(project, teacher)
        assert result.exception is None, result.output
        assert len(teacher.calls) == 12
        out = lines(project / "out.jsonl")
        assert [row["extra"] for row in out] == [0, 1, 2, 4, 5]
        assert (
            out[0].items() >= {"document": "text 0", "question": "What is text 0?", "answer": "It is text 0."}.items()
        )
        [refused] = lines(project / "out.rejected.jsonl")
        assert (refused["block"], refused["row"]["extra"]) == ("judge", 3)
        assert refused["reason"] == "judged too low: 0.00 is below 0.50: 1: as it is"
        before = (project / "out.jsonl").read_bytes()
        assert "0 calls, 12 from memo" in run(project, teacher).output
        assert len(teacher.calls) == 12
        assert (project / "out.jsonl").read_bytes() == before


def test_an_edit_asks_again_for_what_it_touches(project: Path) -> None:
    with serve(script) as teacher:
        run(project, teacher)
        (project / "flow" / "judge.txt").write_text("JUDGE well {{ question }} {{ answer }}")
        assert "6 calls, 6 from memo" in run(project, teacher).output
        rows = (project / "rows.jsonl").read_text()
        (project / "rows.jsonl").write_text(rows + '{"document": "text 9", "extra": 9}\n')
        assert "2 calls, 12 from memo" in run(project, teacher).output
        edited = FLOW.replace("threshold: 0.5", "threshold: 0.0")  # a threshold changes no question to the teacher
        (project / "flow" / "knowledge.yaml").write_text(edited)
        result = run(project, teacher)
        assert "7 rows" in result.output
        assert "0 calls, 14 from memo" in result.output


def test_the_quality_threshold_is_the_judges(project: Path) -> None:
    (project / "flow" / "knowledge.yaml").write_text(FLOW.replace("        threshold: 0.5\n", ""))
    with serve(lambda body: script(body).replace("]3[", "]2[")) as teacher:
        result = run(project, teacher)
        assert isinstance(result.exception, ServiceError)
        assert "no row came out: 6 were refused" in result.exception.message
        assert "judged too low: 0.50 is below 0.70" in result.exception.message
        assert "5 rows" in run(project, teacher, "--quality-threshold", "0.5").output


def test_rows_that_do_not_fit_are_told_before_any_call(project: Path) -> None:
    with serve(script) as teacher:
        (project / "rows.jsonl").write_text('{"document": "x"}\n{"text": "y"}\n')
        error = run(project, teacher).exception
        assert isinstance(error, InputError)
        assert "needs the column 'document'" in error.message
        assert error.where.endswith("knowledge.yaml:7")
        for text, said in (
            ("{", "not JSON"),
            ("[1]", "a JSON object"),
            ("", "no rows"),
            ('{"a": 1}\n{"a": 1}', "the same"),
        ):
            (project / "rows.jsonl").write_text(text)
            error = run(project, teacher).exception
            assert isinstance(error, InputError)
            assert said in error.message
        assert teacher.calls == []
    error = ilab(project, "run", "flow", "--input", "rows.jsonl", "--output", "o").exception
    assert isinstance(error, InputError)


def test_a_flow_that_asks_needs_a_teacher(project: Path) -> None:
    error = ilab(project, "run", "flow", "--input", "rows.jsonl", "--output", "o.jsonl").exception
    assert isinstance(error, InputError)
    assert "--endpoint-url" in error.hint


def test_upstreams_pipelines_run_over_rows(project: Path) -> None:
    pipeline = 'version: "1.0"\nblocks:\n  - {name: w, type: LLMBlock, config: {config_path: p.yaml, output_cols: [response]}}\n'
    (project / "p.yaml").write_text(
        "generation: 'ASK {{ document }}'\nstart_tags: ['[ANSWER]']\nend_tags: ['[/ANSWER]']\n"
    )
    (project / "pipe.yaml").write_text(pipeline)
    with serve(script) as teacher:
        arguments = [
            "--input",
            "rows.jsonl",
            "--output",
            "out.jsonl",
            "--endpoint-url",
            teacher.url,
            "--model",
            "teacher",
        ]
        result = ilab(project, "run", "pipe.yaml", *arguments)
    assert result.exception is None, result.output
    assert lines(project / "out.jsonl")[2]["response"] == "It is text 2."  # under upstream's own name


def test_show_tells_what_each_block_needs_adds_and_costs(project: Path) -> None:
    result = ilab(project, "show", "simple", "--sdg-scale-factor", "7", as_json=True)
    shown = {flow["kind"]: flow for flow in json.loads(result.output)}
    [branch] = shown["knowledge"]["branches"]
    repeat, write = branch["blocks"]
    assert (repeat["rows"], repeat["calls"], write["rows"], write["calls"]) == (1, 0, 7, 7)
    assert {"document", "examples"} <= set(write["needs"])
    assert write["adds"] == ["answer", "question"]
    text = ilab(project, "show", "flow").output
    assert "teacher calls per input row: 2" in text
    for said in ("write", "judge", "document", "question"):
        assert said in text
    assert ilab(project, "show", "simple", "--kind", "freeform").output.count("branch ") == 1


def test_check_tells_everything_at_once(project: Path) -> None:
    result = ilab(project, "check", "flow")
    assert (result.exception, "2 blocks, nothing wrong" in result.output) == (None, True)
    broken = (
        FLOW.replace("type: judge", "type: juge")
        .replace("prompt: ask.txt", "promt: ask.txt")
        .replace("input: chunk", "input: seed")
    )
    (project / "flow" / "knowledge.yaml").write_text(broken)
    (project / "flow" / "freeform_skills.yaml").write_text(FLOW)
    error = ilab(project, "check", "flow").exception
    assert isinstance(error, InputErrors)
    told = [(one.where.rpartition("/")[2], one.message) for one in error.errors]
    assert ("knowledge.yaml:11", "there is no block called 'juge'") in told
    assert ("knowledge.yaml:9", "unknown field 'promt'") in told
    assert ("freeform_skills.yaml:5", "skills have no documents, so there are no chunks") in told
    assert len(told) == 4  # and the prompt that is missing


def test_copy_then_change(project: Path) -> None:
    result = ilab(project, "copy", "simple", "own")
    assert result.exception is None, result.output
    same = json.loads(ilab(project, "check", "own", as_json=True).output)["digest"]
    assert same == json.loads(ilab(project, "check", "simple", as_json=True).output)["digest"]
    (project / "own" / "knowledge.txt").write_text("Ask of {{ document }}")
    assert json.loads(ilab(project, "check", "own", as_json=True).output)["digest"] != same
    assert isinstance(ilab(project, "copy", "simple", "own").exception, InputError)


def test_list_and_names_that_mean_nothing(project: Path) -> None:
    listed = {flow["name"]: flow for flow in json.loads(ilab(project, "list", as_json=True).output)}
    assert listed["simple"]["teacher"] is True
    assert listed["extractive"]["teacher"] is False
    assert "needs none" in ilab(project, "list").output
    for arguments in (
        ("show", "simpel"),
        ("check", "simpel"),
        ("run", "simpel", "--input", "rows.jsonl", "--output", "o"),
    ):
        error = ilab(project, *arguments).exception
        assert isinstance(error, InputError)
        assert "did you mean 'simple'" in error.hint
    error = ilab(project, "run", "simple", "--input", "rows.jsonl", "--output", "o").exception
    assert isinstance(error, InputError)
    assert error.hint == "--kind knowledge | grounded | freeform"
