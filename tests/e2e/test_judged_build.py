"""A build with a judge behind HTTP: its verdict chooses, weighs, is shown, and alone never publishes."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from ilab.data import seed_from
from ilab.testing.judging import part
from ilab.testing.teacher import serve

CALENDAR = "compositional_skills/scheduling/calendar_line"
PHASE_1 = ("run", "--until", "mix-skills")


def say(mark: int) -> str:
    return f'It is so.\n{{"mark": {mark}}}'


def marks(body: dict[str, Any]) -> str:
    """``generous`` finds all of it right; ``strict`` everything but calendar lines. About one in 20 gets no mark."""
    prompt = body["messages"][-1]["content"]
    if seed_from(part(prompt, "question"), 1) % 20 == 0:
        return "I would rather not say."
    a_calendar_line = "[" in part(prompt, "reference")  # the day stands in brackets
    return say(1 if body["model"] == "strict" and a_calendar_line else 10)


def judged(url: str, name: str) -> tuple[str, ...]:
    return ("-p", f"eval_judge_model={name}", "--set", f"where.judge.url={url}")


def rows(project: Any, step: str) -> Counter[str]:
    """Training rows by leaf."""
    text = (project.store.contents(project.latest(step)) / "train.jsonl").read_text(encoding="utf-8")
    return Counter(json.loads(line)["leaf"] for line in text.splitlines())


def choice(project: Any) -> dict[str, Any]:
    place = project.store.contents(project.latest("select-phase-1"))
    found: dict[str, Any] = json.loads((place / "choice.json").read_text())
    return found


def report(project: Any, step: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.store.contents(project.latest(step)) / "report.json").read_text())
    return found


def test_the_verdict_between_the_phases_changes_what_phase_2_trains_on(built: Any) -> None:
    with serve(marks, models=("generous", "strict")) as server:
        found = {}
        for name in ("generous", "strict"):
            done = built.ilab(*PHASE_1, *judged(server.url, name))
            assert done.returncode == 0, done.stderr
            found[name] = choice(built), rows(built, "mix-skills")
        asked = len(server.calls)
        assert built.ilab(*PHASE_1, *judged(server.url, "strict"), "--force", "evaluate-phase-1").returncode == 0
        assert len(server.calls) == asked, "what was judged is not judged again"
    assert found["generous"][0]["judge"] == "generous"
    assert found["generous"][0]["weights"][CALENDAR] < 1.3, "what the judge finds right needs no more rows"
    assert found["strict"][0]["weights"][CALENDAR] == 2.0
    assert found["strict"][1][CALENDAR] > found["generous"][1][CALENDAR]


def test_a_whole_build_shows_the_judge_and_does_not_hang_on_it_alone(built: Any) -> None:
    with serve(marks, models=("generous",)) as server:
        done = built.ilab("run", *judged(server.url, "generous"), "-p", "eval_metrics=judge")
    assert done.returncode == 0, done.stderr  # the project lets an open verdict through
    judging = report(built, "final-evaluation")["judging"]
    assert judging["judge"] == "generous" and judging["marked"] > 0
    assert judging["unscored"].keys() == {"the judge gave no readable mark"}, "silence is counted, and is no low mark"
    decision = report(built, "gate")
    assert decision["verdict"] == "inconclusive" and decision["judge"]["trusted"] is False
    assert "calibrate" in decision["line"] or "calibrate" in json.dumps(decision["rules"])
    for step in ("mt-bench", "mt-bench-branch"):
        results = report(built, step)["results"]
        assert set(results) == {"base", "candidate"} and results["candidate"]["judge"] == "generous"
        assert results["candidate"]["score"] == pytest.approx(10.0, abs=9.0)


def test_a_judge_needs_a_server_and_a_server_a_name(project: Any) -> None:
    lonely = project.ilab("plan", "-p", "eval_judge_model=someone")
    assert lonely.returncode == 2 and "no endpoint serves it" in lonely.stderr
    nameless = project.ilab("plan", "--set", "where.judge.url=http://127.0.0.1:9/v1")
    assert nameless.returncode == 2 and "eval_judge_model=NAME" in nameless.stderr
    plain = project.ilab("plan")
    assert plain.returncode == 0 and "no judge" in plain.stderr
