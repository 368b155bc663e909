"""Held-out questions beside a leaf."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ilab.errors import InputErrors
from ilab.taxonomy.items import UNKNOWN
from ilab.taxonomy.read import read_taxonomy

SKILL = {
    "version": 3,
    "created_by": "t",
    "task_description": "Do it.",
    "seed_examples": [{"question": f"q{n}", "answer": f"a{n}"} for n in range(5)],
}


def leaf_with(root: Path, items: list[dict[str, Any]] | str) -> Path:
    folder = root / "compositional_skills/a"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "qna.yaml").write_text(yaml.safe_dump(SKILL))
    text = items if isinstance(items, str) else yaml.safe_dump({"items": items}, sort_keys=False)
    (folder / "eval.yaml").write_text(text)
    return root


def item(**fields: Any) -> dict[str, Any]:
    return {"split": "test", "question": "Q?", "answer": "A"} | fields


def test_kinds_ids_and_clusters(tmp_path: Path) -> None:
    leaf_with(tmp_path, [
        item(options=["A", "B"]),
        item(question="Q2?", split="dev"),
        item(question="Q2?", context="C", kind="free", about="kiln"),
        item(question="Q3?", about="kiln"),
    ])  # fmt: skip
    items = read_taxonomy(tmp_path).leaves[0].items
    assert [(one.kind, one.split, one.options) for one in items] == [
        ("mcq", "test", ("A", "B")),
        ("exact", "dev", ()),
        ("free", "test", ()),
        ("exact", "test", ()),
    ]
    assert all(
        one.id.startswith("compositional_skills/a/eval/") and one.leaf == "compositional_skills/a" for one in items
    )
    assert len({one.id for one in items}) == 4
    assert items[0].cluster == items[0].id
    assert items[2].cluster == items[3].cluster == "compositional_skills/a/kiln"
    assert {one.origin for one in items} == {"person"}


def test_unanswerable_questions_need_no_answer(tmp_path: Path) -> None:
    silent = {"split": "test", "question": "Who?", "unanswerable": True}
    told = item(question="When?", answer="Nobody says.", unanswerable=True, kind="free")
    items = read_taxonomy(leaf_with(tmp_path, [silent, told, item()])).leaves[0].items
    assert [(one.unanswerable, one.kind, one.gold) for one in items] == [
        (True, "free", UNKNOWN),
        (True, "free", "Nobody says."),
        (False, "exact", "A"),
    ]


def test_ids_are_of_content_not_of_order(tmp_path: Path) -> None:
    questions = [item(question=f"Q{n}?") for n in range(4)]
    before = {one.question: one.id for one in read_taxonomy(leaf_with(tmp_path, questions)).leaves[0].items}
    leaf_with(tmp_path, [item(question="new"), *reversed(questions)])
    after = {one.question: one.id for one in read_taxonomy(tmp_path).leaves[0].items}
    assert {name: after[name] for name in before} == before


def test_items_do_not_change_the_leaf_digest(tmp_path: Path) -> None:
    before = read_taxonomy(leaf_with(tmp_path, [item()])).leaves[0].digest
    assert read_taxonomy(leaf_with(tmp_path, [item(answer="B")])).leaves[0].digest == before


@pytest.mark.parametrize(
    ("items", "at", "words"),
    [
        ([item(), item(answer="B")], "5:3", "asks the same question as line 2"),
        ([item(options=["B", "C"])], "4:11", "the answer `A` is not among the options"),
        ([item(options=["A"])], "6:3", "needs at least 2 entries"),
        ([item(options=["A", "A"])], "7:5", "is the same as the entry at line 6"),
        ([item(kind="mcq")], "2:3", "needs `options`"),
        ([item(kind="exact", options=["A", "B"])], "7:3", "has no options"),
        ([item(kind="mqc")], "5:9", "must be `mcq` or `exact` or `free`, not `mqc`\n  did you mean `mcq`?"),
        ([item(unanswerable=True, options=["A", "B"])], "2:3", "an unanswerable question has no options"),
        ([item(unanswerable=True, kind="exact")], "2:3", "an unanswerable question has no options"),
        ([item(unanswerable="maybe")], "5:17", "must be `true` or `false`"),
        ([{"split": "test", "question": "Q", "unanswerable": False}], "2:3", "has no `answer`"),
        ([item(split="train")], "2:10", "must be `dev` or `test`"),
        ([{"question": "Q", "answer": "A"}], "2:3", "has no `split`"),
        ([item(anser="A")], "5:3", "is not a known key"),
        ([], "1:8", "needs at least 1 entry"),
        ("", "1:1", "is empty"),
        ("items:\n  - {split: dev, question: Q, answer: A}\n  - a: [\n", "3:9", "a bracket is not closed"),
        (
            "items: [{split: dev, question: Q, answer: A}, {split: dev, question: Q, answer: B}]",
            "1:47",
            "same question as line 1",
        ),
    ],
)
def test_faults_have_their_line(tmp_path: Path, items: Any, at: str, words: str) -> None:
    with pytest.raises(InputErrors) as error:
        read_taxonomy(leaf_with(tmp_path, items))
    told = [str(problem) for problem in error.value.errors]
    assert any(one.startswith(f"compositional_skills/a/eval.yaml:{at}: ") and words in one for one in told), told
