"""What a change makes run again, and what it leaves alone. Each test works on a copy of a finished build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

KILN = "knowledge/technology/devices/tavrin_kiln"
CALENDAR = "compositional_skills/scheduling/calendar_line"
TRAINING = ("train-phase-1", "train-phase-2")


def pairs(lines: list[str], chunk: str | None = None) -> list[tuple[str, str, str]]:
    """(id, question, answer) of samples as JSON lines, of one chunk or of all."""
    found = []
    for line in lines:
        sample = json.loads(line)
        if chunk is None or sample["origin"].get("chunk") == chunk:
            found.append((sample["id"], sample["messages"][0]["content"], sample["messages"][-1]["content"]))
    return found


def chunks(project: Any) -> dict[str, str]:
    """Chunk id to text."""
    text = (project.store.contents(project.latest("documents")) / "chunks.jsonl").read_text(encoding="utf-8")
    return {chunk["id"]: chunk["text"] for chunk in map(json.loads, text.splitlines())}


def test_an_edited_answer_makes_only_its_leaf_new(built: Any) -> None:
    own, others = built.lines("generate", "samples.jsonl", CALENDAR)
    built.edit(f"taxonomy/{CALENDAR}/qna.yaml", "'[14] lesson with Marta'", "'At [14] lesson with Marta'")
    plan = built.plan()
    assert plan["taxonomy"]["why"] == "made already (tree has other contents)"
    assert plan["generate"]["why"] == "input taxonomy changed"
    assert plan["generate"]["state"] == "run"
    assert plan["base"]["state"] == "reuse"
    assert plan["score-base"]["state"] == "link"
    assert plan["train-phase-1"]["state"] == "maybe" and plan["train-phase-1"]["unless"] == ["mix-knowledge"]
    assert built.plan() == plan, "asking again must not change the answer"

    built.built()
    counts = built.latest("generate").counts
    now, others_now = built.lines("generate", "samples.jsonl", CALENDAR)
    assert others_now == others
    assert now != own
    assert counts["from_memo"] == len(others) > 100
    assert counts["new"] == len(now) > 0
    states = built.states()
    assert states["train-phase-1"] == "link", "the knowledge did not change"
    assert states["train-phase-2"] == "run"
    assert built.plan()["generate"]["why"] == "nothing it depends on has changed"


def test_an_edited_sentence_makes_only_its_chunk_new(built: Any) -> None:
    before = chunks(built)
    samples, skills = built.lines("generate", "samples.jsonl", KILN)
    built.edit(
        f"taxonomy/{KILN}/tavrin_kiln.md", "The door handle is made of walnut", "The door handle is made of cherry"
    )
    plan = built.plan()
    assert plan["documents"]["why"] == "made already (sources has other contents)"
    assert plan["taxonomy"]["why"] == "nothing it depends on has changed"
    assert plan["generate"]["why"] == "input documents changed"

    built.built()
    after = chunks(built)
    (old,), (new,) = set(before) - set(after), set(after) - set(before)
    assert "walnut" in before[old] and "cherry" in after[new]
    samples_now, skills_now = built.lines("generate", "samples.jsonl", KILN)
    assert skills_now == skills
    kept = set(before) & set(after)
    assert len(kept) == len(before) - 1
    for chunk in sorted(kept):
        assert pairs(samples_now, chunk) == pairs(samples, chunk)
    counts = built.latest("generate").counts
    assert counts["new"] == len(pairs(samples_now, new)) > 0
    assert counts["from_memo"] == len(samples_now) + len(skills_now) - counts["new"]
    assert any("cherry" in answer for _, _, answer in pairs(samples_now, new))


@pytest.mark.parametrize("address", ["taxonomy", "URL"])
def test_a_commit_that_touches_another_file_retrains_nothing(built: Any, address: str) -> None:
    built.git("init", "--quiet")
    built.git("add", "--all")
    built.git("commit", "--quiet", "--message", "leaves")
    if address == "URL":
        address = (built.root / "taxonomy").as_uri()
    built.built("-p", f"sdg_repo_url={address}")
    assert "run" not in built.states().values(), "the same leaves, wherever they lie"
    before = built.digests()

    (built.root / "taxonomy" / "README.md").write_text("# Leaves\n")
    built.git("add", "--all")
    built.git("commit", "--quiet", "--message", "a page about them")
    plan = built.plan("-p", f"sdg_repo_url={address}")
    assert {row["state"] for row in plan.values()} == {"reuse"}
    assert {row["why"] for row in plan.values()} == {"nothing it depends on has changed"}
    built.built("-p", f"sdg_repo_url={address}")
    assert set(built.states().values()) == {"reuse"}
    assert built.digests() == before


def test_a_paragraph_above_leaves_other_chunks_alone(built: Any) -> None:
    """Ids come from the text, not from the position."""
    samples, _ = built.lines("generate", "samples.jsonl", KILN)
    before = chunks(built)
    heading = "# Tavrin Workshop Kiln\n"
    more = "\n## Delivery\n\nThe delivery box of the kiln is made of plywood. The delivery box weighs 12 kilograms.\n"
    built.edit(f"taxonomy/{KILN}/tavrin_kiln.md", heading, heading + more)
    built.built("--until", "generate")
    now, _ = built.lines("generate", "samples.jsonl", KILN)
    assert set(before) < set(chunks(built))
    assert [pair for pair in pairs(now) if pair in set(pairs(samples))] == pairs(samples)
    assert built.latest("generate").counts["new"] == len(now) - len(samples) > 0


def test_an_edited_question_scores_again_and_retrains_nothing(built: Any) -> None:
    built.edit(
        f"taxonomy/{KILN}/eval.yaml", "How much does the kiln door weigh?", "What is the weight of the kiln's door?"
    )
    plan = built.plan()
    assert plan["generate"]["why"] == "input held_out changed; input taxonomy changed"
    assert all(plan[step]["state"] == "maybe" for step in TRAINING)
    built.built()
    states = built.states()
    assert [states[step] for step in TRAINING] == ["link", "link"]
    assert built.latest("generate").counts["new"] == 0
    assert states["evaluate-phase-1"] == "run"


def test_training_settings_name_the_field(built: Any) -> None:
    plan = built.plan("-p", "train_epochs_phase_2=4")
    assert plan["train-phase-2"]["why"] == "epochs: 2 → 4"
    assert plan["train-phase-2"]["state"] == "run"
    assert plan["train-phase-2"]["expected"]["seconds"] > 0
    assert plan["train-phase-1"]["state"] == "reuse"
    text = built.ilab("plan", "-p", "train_epochs_phase_2=4").stdout
    assert "epochs: 2 → 4" in text and "steps to run" in text
    assert "up to date" in built.ilab("plan").stdout


def test_force_until_and_only(built: Any) -> None:
    before = built.digests()
    built.built("--force", "mix-knowledge")
    assert {name for name, state in built.states().items() if state == "run"} == {"mix-knowledge"}
    assert built.digests() == before, "a forced step makes the same bytes"

    built.built("-p", "sdg_scale_factor=5", "--until", "generate")
    assert set(built.states()) == {"taxonomy", "documents", "items", "generate"}
    assert built.states()["generate"] == "run"

    missing = built.ilab("run", "-p", "sdg_scale_factor=6", "--only", "mix-knowledge")
    assert missing.returncode == 2
    assert "generate has not been made yet" in missing.stderr and "ilab run --until generate" in missing.stderr
    built.built("-p", "sdg_scale_factor=5", "--only", "mix-knowledge")
    assert list(built.states().values()) == ["run"]
    both = built.ilab("run", "--only", "generate", "--until", "generate")
    assert both.returncode == 2 and "exclude each other" in both.stderr


def test_garbage_is_named_then_removed(built: Any) -> None:
    built.built("-p", "sdg_scale_factor=5", "--until", "mix-knowledge")
    kept = set(built.digests())
    would = built.json("pipeline", "gc", "--dry-run")
    assert set(built.digests()) == kept
    assert {Path(row["path"]).parent.name for row in would["removed"]} == {"generate", "mix"}
    assert built.json("pipeline", "gc") == would
    assert not any(Path(row["path"]).exists() for row in would["removed"])
    assert would["bytes"] == sum(row["bytes"] for row in would["removed"]) > 0
    assert built.json("pipeline", "gc")["removed"] == []
    assert {row["state"] for row in built.plan().values()} == {"reuse"}


def test_garbage_spares_what_a_linked_result_stands_on(built: Any) -> None:
    built.edit(
        f"taxonomy/{KILN}/eval.yaml", "How much does the kiln door weigh?", "What is the weight of the kiln's door?"
    )
    built.built()
    linked = built.latest("train-phase-2")
    assert linked.linked_to
    assert built.json("pipeline", "gc")["bytes"] > 0
    assert (built.store.contents(linked) / "candidates.json").exists()
    assert {row["state"] for row in built.plan().values()} == {"reuse"}


def test_garbage_is_not_what_another_project_in_the_store_needs(built: Any, project: Any) -> None:
    store = ("--store", str(built.store.root))
    assert project.ilab(*store, "run", "-p", "sdg_scale_factor=5", "--until", "generate").returncode == 0
    before = built.digests()
    assert built.json("pipeline", "gc")["removed"] == []
    assert project.json(*store, "pipeline", "gc", "-p", "sdg_scale_factor=5")["removed"] == []
    assert built.digests() == before


def test_status_says_what_is_done(built: Any) -> None:
    built.built("-p", "sdg_scale_factor=5", "--until", "generate")
    states = {row["step"]: row for row in built.json("pipeline", "status", "-p", "sdg_scale_factor=5")}
    assert states["generate"]["state"] == "done"
    assert states["generate"]["detail"]["counts"]["accepted"] > 100
    assert states["mix-knowledge"]["state"] == "to do"
    assert "to do" in built.ilab("pipeline", "status", "-p", "sdg_scale_factor=5").stdout


def test_a_step_of_a_plan_made_earlier(built: Any) -> None:
    file = built.root / "plan.json"
    assert built.ilab("plan", "-p", "sdg_scale_factor=5", "--output", str(file)).returncode == 0
    done = built.ilab("--json", "step", "run", "--plan", str(file), "--step", "generate")
    assert done.returncode == 0, done.stderr
    key = next(step["key"] for step in json.loads(file.read_text())["steps"] if step["name"] == "generate")
    assert json.loads(done.stdout)["key"] == key == built.latest("generate").key
    assert built.plan("-p", "sdg_scale_factor=5")["generate"]["state"] == "reuse"

    early = built.ilab("step", "run", "--plan", str(file), "--step", "train-phase-1")
    assert early.returncode == 2 and "mix-knowledge has not been made yet" in early.stderr
    unknown = built.ilab("step", "run", "--plan", str(file), "--step", "genrate")
    assert unknown.returncode == 2 and "did you mean 'generate'?" in unknown.stderr
    edited = json.loads(file.read_text())
    edited["steps"][0]["fields"]["tree"] = "0" * 64
    for text in ("{", "[]", "{}", json.dumps(edited)):
        file.write_text(text)
        refused = built.ilab("step", "run", "--plan", str(file), "--step", "generate")
        assert refused.returncode == 2 and "ilab plan" in refused.stderr and "Traceback" not in refused.stderr
