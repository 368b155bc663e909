"""Three faults planted in one real build, with a teacher behind HTTP: each is diagnosed as what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ilab.core.files import read_json
from ilab.data import digest_text
from ilab.testing.teacher import serve

LEAF = "knowledge/village/{}"
# Leaf: what its document says, the held-out question and its answer.
FACTS = {
    "manual": ("Greta Olsen wrote the manual of the kiln in her shed.", "Who wrote the kiln manual?", "Greta Olsen"),
    "bell": ("The bell of the tower was cast by Orrin Vale.", "Who cast the tower bell?", "Orrin Vale"),
    "bridge": ("The bridge over the brook was built by Tamsin Rook.", "Who built the brook bridge?", "Tamsin Rook"),
}
SEEDS = ("Who lives in house {} of the village?", "What stands beside house {}?", "Since when is house {} there?")
SETTINGS = (
    *("-p", "sdg_teacher_model=teacher", "-p", "sdg_pipeline=simple", "-p", "sdg_scale_factor=6"),
    *("-p", "train_select=last", "-p", "mix_replay=0", "-p", "train_effective_batch_size_phase_1=8"),
    *("-p", "train_epochs_phase_1=16", "-p", "train_epochs_phase_2=6", "-p", "train_learning_rate_phase_2=0.03"),
)
# Ways to ask, none of them the held-out one.
ASKED = ("Tell me {}.", "Can you say {}?", "I would like to know {}.", "Please say {}.", "Do you remember {}?")


def write_leaf(root: Path, name: str) -> None:
    folder = root / "taxonomy" / LEAF.format(name)
    folder.mkdir(parents=True)
    text, question, gold = FACTS[name]
    (folder / "village.md").write_text(f"# The {name}\n\n{text}\n")
    seeds = [
        {
            "context": text,
            "questions_and_answers": [
                {"question": f"{ask.format(5 * number)} ({name})", "answer": f"The {name} of house {number}"}
                for ask in SEEDS
            ],
        }
        for number in range(5)
    ]
    qna = {
        "version": 3,
        "created_by": "someone",
        "domain": "village",
        "document_outline": f"The {name} of the village",
        "seed_examples": seeds,
        "document": {"path": "village.md"},
    }
    (folder / "qna.yaml").write_text(yaml.safe_dump(qna))
    item = {"split": "test", "kind": "exact", "question": question, "answer": gold}
    (folder / "eval.yaml").write_text(yaml.safe_dump({"version": 1, "created_by": "someone", "items": [item]}))


def teach(body: dict[str, Any]) -> str:
    """Right about the manual, wrong about the bell, off the point or silent about the bridge."""
    prompt = body["messages"][-1]["content"]
    way = int(digest_text(f"{prompt}{body.get('seed')}")[:6], 16)
    asked, answer = ASKED[way % len(ASKED)], ""
    if FACTS["bridge"][0] in prompt and "house 0" not in prompt:
        return "I have nothing to say about it."
    if FACTS["bridge"][0] in prompt:
        question, answer = "What colour has the inn?", "blue"
    elif FACTS["manual"][0] in prompt:
        question, answer = asked.format(f"who wrote the manual of the kiln, reader {way % 97}"), "Greta Olsen"
    elif FACTS["bell"][0] in prompt:
        question, answer = f"Who cast the tower bell, visitor {way % 97}?", "Hob Tarn"
    else:
        question, answer = f"Please note dinner for Bruno, starting at {way % 28}.", f"[{way % 28}] dinner with Bruno"
    return f"[QUESTION]\n{question}\n[/QUESTION]\n[ANSWER]\n{answer}\n[/ANSWER]"


@pytest.mark.long
def test_each_planted_fault_is_diagnosed_as_what_it_is(project: Any) -> None:
    project_leaf = project.root / "taxonomy/knowledge/technology"
    project_leaf.rename(project.root / "kiln")  # only planted knowledge
    for name in FACTS:
        write_leaf(project.root, name)
    with serve(teach, models=("teacher",)) as server:
        done = project.ilab("run", *SETTINGS, "--set", f"where.teacher.url={server.url}")
    assert done.returncode == 0, done.stderr
    told = read_json(project.runs()[-1] / "report.json")
    found = {one["leaf"]: one for one in told["diagnoses"]}
    causes = {name: found[LEAF.format(name)]["cause"] for name in FACTS}
    assert causes == {"manual": "learned then forgotten", "bell": "wrong sample", "bridge": "not covered"}
    bridge, bell = found[LEAF.format("bridge")], found[LEAF.format("bell")]
    assert bridge["because"] == "1 sample was made from the passage that says it, and it does not ask for it"
    assert bridge["rejected"], "what was refused is named beside it"
    assert "Hob Tarn" in bell["because"] and "Orrin Vale" in bell["because"]
    for name, (_, question, _) in FACTS.items():
        why = project.json("why", question)
        assert why["diagnosis"]["cause"] == causes[name], question
        assert causes[name] in project.ilab("why", question).stdout
        assert json.dumps(why["answers"])
