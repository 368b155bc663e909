"""What an edit asks for anew: the server counts. And the same seed gives the same bytes, whatever is in flight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ilab.testing.teacher import Faults, serve

LEAVES, PASSAGES = 40, 2
CALLS = LEAVES * PASSAGES * 7


def lines(content: dict[str, bytes], without: str) -> list[str]:
    text = content["samples.jsonl"].decode()
    return [line for line in text.splitlines() if f'"{without}' not in line]


@pytest.fixture
def forty(generating: Callable[[int, int], Any], teacher_script: Any) -> Any:
    """Forty leaves, generated."""
    project = generating(LEAVES, PASSAGES)
    with serve(teacher_script) as teacher:
        project.end(teacher)
        assert len(teacher.calls) == CALLS
    assert project.record().counts["accepted"] == LEAVES * PASSAGES * 3
    return project


def asked_again(project: Any, script: Any, stage_of: Any) -> Counter[str]:
    """Run again; the blocks that asked, each with how often."""
    with serve(script) as teacher:
        project.end(teacher)
        return Counter(stage_of(body) for body in teacher.calls)


@pytest.mark.long
def test_an_edited_leaf_asks_for_its_own_calls(forty: Any, teacher_script: Any, stage_of: Any) -> None:
    before = forty.content()
    qna: Path = forty.leaf(17) / "qna.yaml"
    qna.write_text(qna.read_text().replace("domain: towers", "domain: lighthouses"))
    # The domain stands in the prompt of `ask`; another prompt gives other questions, and so on.
    asked = asked_again(forty, teacher_script, stage_of)
    assert asked == {"ask": PASSAGES, "reply": 3 * PASSAGES, "judge": 3 * PASSAGES}
    counts = forty.record().counts
    assert counts["from_memo"] == (LEAVES - 1) * PASSAGES * 3 and counts["new"] == PASSAGES * 3
    after = forty.content()
    assert lines(after, "knowledge/tower17") == lines(before, "knowledge/tower17")
    assert len(lines(after, "knowledge/tower17")) == (LEAVES - 1) * PASSAGES * 3


@pytest.mark.long
def test_an_edited_passage_asks_for_its_own_calls(forty: Any, teacher_script: Any, stage_of: Any) -> None:
    (forty.leaf(3) / "texts" / "001.md").write_text("The tower 3.1 has two lamps of glass now.\n")
    assert asked_again(forty, teacher_script, stage_of) == {"ask": 1, "reply": 3, "judge": 3}
    assert asked_again(forty, teacher_script, stage_of) == {}


@pytest.mark.long
@pytest.mark.parametrize(
    ("block", "calls"),
    [
        ("judge", {"judge": 3}),
        ("reply", {"reply": 3, "judge": 3}),
        ("ask", {"ask": 1, "reply": 3, "judge": 3}),
    ],
)
def test_an_edited_prompt_asks_for_its_block_and_later_ones(
    forty: Any, teacher_script: Any, stage_of: Any, block: str, calls: dict[str, int]
) -> None:
    prompt: Path = forty.folder / "flow" / f"{block}.txt"
    prompt.write_text(f"{prompt.read_text()}\n\nTake care.")
    asked = asked_again(forty, teacher_script, stage_of)
    assert asked == {name: LEAVES * PASSAGES * number for name, number in calls.items()}


@pytest.mark.long
def test_what_does_not_reach_the_teacher_asks_for_nothing(forty: Any, teacher_script: Any, stage_of: Any) -> None:
    """Another name of the flow, a comment, another order of the seed examples, a threshold of a filter."""
    flow: Path = forty.folder / "flow" / "knowledge.yaml"
    flow.write_text(
        "# A comment.\n" + flow.read_text().replace("operation: eq, value: 'YES'", "operation: ne, value: 'NO'")
    )
    assert asked_again(forty, teacher_script, stage_of) == {}
    assert forty.record().counts["calls_from_memo"] == CALLS


@pytest.mark.long
def test_the_same_bytes_whatever_is_in_flight(generating: Callable[[int, int], Any], teacher_script: Any) -> None:
    """1, 7 and 200 at once, the last with faults, so that answers come in another order."""
    project = generating(8, 10)
    made = []
    for in_flight, faults in (
        (1, None),
        (7, None),
        (200, None),
        (200, Faults(share=0.1, kinds=("500", "reset"), seed=2)),
    ):
        one = project.beside(f"store{len(made)}", in_flight=in_flight)
        with serve(teacher_script, faults=faults, latency=0.002) as teacher:
            one.end(teacher)
            assert teacher.peak <= in_flight
        made.append((one.record().digest, one.content()))
    assert [one for one in made if one != made[0]] == []
    assert len(made[0][1]["samples.jsonl"].splitlines()) == 240
