"""`data generate` while the server fails: 300 rows of 300 whatever goes wrong, 600 of 600 after an outage, and what is
bad for good is one refused row with its reason.

What it costs is counted in calls, which are the same on every machine: a fault costs the call that failed, and nothing
else is asked again. ``benchmarks/sdg.py --faults`` measures the time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ilab.testing.teacher import Faults, serve

PASSAGES = 100
CALLS, ROWS = 7 * PASSAGES, 3 * PASSAGES
KINDS = ["500", "503", "429", "429-seconds", "429-date", "reset", "silent"]
KINDS += ["malformed", "empty", "untagged", "truncated", "wrong-n"]
REDRAWN = ("untagged", "truncated")  # an answer that nobody can use is asked for with another seed
OUTAGE = 20.0


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, project_in: Any, teacher_script: Any) -> dict[str, bytes]:
    """The result without faults."""
    project = project_in(tmp_path_factory.mktemp("clean"), 1, PASSAGES)
    with serve(teacher_script) as teacher:
        project.end(teacher)
        assert len(teacher.calls) == CALLS
    content: dict[str, bytes] = project.content()
    return content


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_three_hundred_of_three_hundred(
    generating: Callable[[int, int], Any], teacher_script: Any, ids_of: Any, clean: dict[str, bytes], kind: Any
) -> None:
    project = generating(1, PASSAGES)
    if kind == "silent":
        project.settings["timeout"] = 2.0
    with serve(teacher_script, faults=Faults(share=0.05, kinds=(kind,), seed=11, once=kind in REDRAWN)) as teacher:
        project.end(teacher)
        assert len(teacher.faulty) >= 20
        repeated = 0 if kind == "wrong-n" else len(teacher.faulty)  # a choice too many is paid, and left out
        probes = sum(body["max_tokens"] == 1 for body in teacher.calls)  # where many fail in a row
        assert probes <= 10 and 0 <= CALLS + repeated + probes - len(teacher.calls) <= probes  # a probe may fail too
    made, counts = project.content(), project.record().counts
    assert (counts["accepted"], counts["rejected"]) == (ROWS, 0)
    assert ids_of(made) == ids_of(clean) and len(set(ids_of(made))) == ROWS
    if kind == "wrong-n":
        assert unpaid(made) == unpaid(clean)
    elif kind not in REDRAWN:
        assert made == clean


def unpaid(content: dict[str, bytes]) -> list[dict[str, Any]]:
    """The samples without the tokens they took."""
    samples = [json.loads(line) for line in content["samples.jsonl"].decode().splitlines()]
    return [{**sample, "origin": {**sample["origin"], "usage": None}} for sample in samples]


@pytest.mark.long
def test_all_faults_at_once(
    generating: Callable[[int, int], Any], teacher_script: Any, ids_of: Any, clean: dict[str, bytes]
) -> None:
    """A fifth of the calls fail, in every way there is."""
    project = generating(1, PASSAGES)
    kinds: Any = tuple(kind for kind in KINDS if kind != "silent")
    with serve(teacher_script, faults=Faults(share=0.2, kinds=kinds, seed=5, once=True)) as teacher:
        project.end(teacher)
        assert set(teacher.faulty) == set(kinds)
    assert ids_of(project.content()) == ids_of(clean)
    assert project.record().counts["rejected"] == 0


@pytest.mark.long
def test_an_outage_loses_none_of_six_hundred(
    generating: Callable[[int, int], Any], teacher_script: Any, ids_of: Any
) -> None:
    """While it lasts nobody asks but the probe: every 5 s at most, besides what was in flight when it began."""
    project = generating(1, 2 * PASSAGES)
    with serve(teacher_script, faults=Faults(outage_after=CALLS, outage=OUTAGE)) as teacher:
        project.end(teacher)
        assert 2 * CALLS < len(teacher.calls) <= 2 * CALLS + 2 * 16 + 20
    made = project.content()
    assert len(ids_of(made)) == len(set(ids_of(made))) == 2 * ROWS
    assert (project.record().counts["accepted"], project.record().counts["rejected"]) == (2 * ROWS, 0)


def test_what_is_bad_for_good_is_a_refused_row(
    generating: Callable[[int, int], Any], teacher_script: Any, stage_of: Any
) -> None:
    """One answer that nobody can read, one verdict that the server cuts off: two rows, each with its reason."""

    def script(body: dict[str, Any]) -> str:
        passage = body["messages"][-1]["content"]
        if "tower 0.3 " in passage and stage_of(body) == "ask":
            return "I would rather talk about something else."
        if "tower 0.5 " in passage and stage_of(body) == "judge":
            return "[VERDICT]NO[/VERDICT]"
        return str(teacher_script(body))

    project = generating(1, 10)
    with serve(script) as teacher:
        project.end(teacher)
        # The unreadable answer is asked for three times, and nothing after it once.
        assert len(teacher.calls) == 9 * 7 + 3
    rejected = [json.loads(line) for line in project.content()["rejected.jsonl"].decode().splitlines()]
    told = sorted((row["block"], row["reason"]) for row in rejected)
    assert told == [
        ("ask", "the answer cannot be read: asked 3 times for [QUESTION]"),
        *[("supported", "verdict is not eq YES: verdict = 'NO'")] * 3,
    ]
    assert [row["row"]["raw"] for row in rejected if row["block"] == "ask"] == [
        "I would rather talk about something else."
    ]
    assert project.record().counts["accepted"] == 8 * 3
