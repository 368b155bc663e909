"""Reading leaves: versions, kinds, errors with lines, digests, and the layout of folders."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ilab.errors import InputError, InputErrors
from ilab.taxonomy.read import Reading, read_taxonomy

DATA = Path(__file__).parents[3] / "shared" / "data"
EXAMPLES = Path(__file__).parents[2] / "examples"


def skill(version: int | None = 3, seeds: int = 5, **more: Any) -> dict[str, Any]:
    leaf: dict[str, Any] = {"created_by": "t", "task_description": "Do it."}
    if version is not None:
        leaf["version"] = version
    leaf["seed_examples"] = [{"question": f"q{n}", "answer": f"a{n}"} for n in range(seeds)]
    return leaf | more


def knowledge(version: int | None = 3, seeds: int = 5, **more: Any) -> dict[str, Any]:
    leaf: dict[str, Any] = {"created_by": "t", "domain": "kilns", "document": {"path": "kiln.md"}}
    if version is not None:
        leaf["version"] = version
    if version == 3:
        pairs = [{"question": f"q{n}", "answer": f"a{n}"} for n in range(3)]
        leaf["document_outline"] = "Kilns."
        leaf["seed_examples"] = [{"context": f"c{n}", "questions_and_answers": pairs} for n in range(seeds)]
    else:
        leaf["task_description"] = "Teach kilns."
        leaf["seed_examples"] = [{"question": f"q{n}", "answer": f"a{n}"} for n in range(seeds)]
    return leaf | more


def write(root: Path, leaf: str, content: dict[str, Any] | str) -> Path:
    path = root / leaf / "qna.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def errors(path: Path) -> list[str]:
    with pytest.raises(InputErrors) as error:
        read_taxonomy(path)
    return [str(problem) for problem in error.value.errors]


def read_one(root: Path, leaf: str, content: dict[str, Any] | str) -> Any:
    write(root, leaf, content)
    (found,) = read_taxonomy(root).leaves
    return found


@pytest.mark.parametrize(
    ("leaf", "content", "kind", "version"),
    [
        ("knowledge/a", knowledge(3), "knowledge", 3),
        ("knowledge/a", knowledge(2), "knowledge", 2),
        ("knowledge/a", knowledge(1, seeds=1), "knowledge", 1),
        ("knowledge/a", knowledge(None, seeds=1), "knowledge", 1),
        ("compositional_skills/a/b", skill(3), "freeform", 3),
        ("compositional_skills/a/b", skill(2), "freeform", 2),
        ("foundational_skills/a", skill(1, seeds=1, task_description=""), "freeform", 1),
        ("foundational_skills/a", skill(None, seeds=1), "freeform", 1),
        ("compositional_skills/a", knowledge(1), "knowledge", 1),
        (
            "compositional_skills/a",
            skill(1, seed_examples=[{"question": "q", "answer": "a", "context": "c"}]),
            "grounded",
            1,
        ),
        (
            "compositional_skills/a",
            skill(1, seed_examples=[{"question": "q", "answer": "a", "context": None}]),
            "freeform",
            1,
        ),
        (
            "compositional_skills/a",
            skill(1, seed_examples=[{"question": "q", "answer": "a", "context": " "}]),
            "freeform",
            1,
        ),
    ],
)
def test_versions_and_kinds(tmp_path: Path, leaf: str, content: dict[str, Any], kind: str, version: int) -> None:
    found = read_one(tmp_path, leaf, content)
    assert (found.path, found.kind, found.version) == (leaf, kind, version)
    assert len(found.seeds) == len(content["seed_examples"])
    assert found.place.file == f"{leaf}/qna.yaml"


def test_texts_arrive_as_written_with_their_places(tmp_path: Path) -> None:
    text = """created_by: me
task_description: >
  Answer
  briefly.
seed_examples:
  - question: Is it hot?
    answer: no
  - question: |

      When?

    answer: 2024-01-01
  - {question: How many?, answer: 007, context: "  indented"}
"""
    found = read_one(tmp_path, "compositional_skills/a", text)
    assert found.task == "Answer briefly."
    assert [seed.pairs[0].answer for seed in found.seeds] == ["no", "2024-01-01", "007"]
    assert [seed.pairs[0].question for seed in found.seeds] == ["Is it hot?", "When?", "How many?"]
    assert found.seeds[2].context == "  indented"
    assert [str(seed.place) for seed in found.seeds] == [
        f"compositional_skills/a/qna.yaml:{n}" for n in ("6:5", "8:5", "13:5")
    ]


@pytest.mark.parametrize(
    ("change", "at", "words"),
    [
        (("version: 3", "version: 9"), "1:10", "versions 1, 2 and 3 are known"),
        (("version: 3", "version: two"), "1:10", "versions 1, 2 and 3 are known"),
        (("task_description:", "task_desciption:"), "3:1", "did you mean `task_description`?"),
        (("task_description: Do it.", "task_description: ''"), "3:19", "`task_description` is empty"),
        (("created_by: t", "created_by: [t]"), "2:13", "`created_by` must be text"),
        (
            ("  answer: a2", "  anwser: a2"),
            "10:3",
            "`seed_examples[2].anwser` is not a known key\n  did you mean `answer`?",
        ),
        (("  answer: a2\n", ""), "9:3", "`seed_examples[2]` has no `answer`"),
        (("  answer: a2", "  answer:"), "10:10", "`seed_examples[2].answer` is empty"),
        (("- question: q4\n  answer: a4\n", ""), "5:1", "needs at least 5 seed examples and has 4"),
        (
            ("- question: q4\n  answer: a4", "- question: q0\n  answer: a0"),
            "13:3",
            "is the same as the entry at line 5",
        ),
        (("- question: q4\n  answer: a4", "- q4"), "13:3", "`seed_examples[4]` must be a mapping"),
        (("  answer: a2", "  answer: a2\n  answer: a3"), "11:3", "stands here twice, first at line 10"),
        (("created_by: t\n", "created_by: t\ndomain: kilns\n"), "3:1", "`domain` is not a known key"),
    ],
)
def test_every_fault_has_its_line(tmp_path: Path, change: tuple[str, str], at: str, words: str) -> None:
    content = skill()
    text = yaml.safe_dump({"version": 3} | content, sort_keys=False)
    assert change[0] in text
    write(tmp_path, "compositional_skills/a", text.replace(*change))
    (told,) = errors(tmp_path)
    assert told.startswith(f"compositional_skills/a/qna.yaml:{at}: ")
    assert words in told


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"document": {"repo": "https://h/r.git", "commit": "main"}}, "`document` has no `patterns`"),
        ({"document": {"repo": "https://h/r.git", "commit": "main", "patterns": []}}, "needs at least 1 entry"),
        ({"document": {"path": "a.md", "commit": "main"}}, "`document.commit` is not a known key"),
        ({"document": {"path": "../../../a.md"}}, "leaves the taxonomy"),
        ({"document": {"path": ["a.md", "*/../../../../x.md"]}}, "`..` after a wildcard"),
        ({"document": {"path": "/etc/passwd"}}, "is not a relative path"),
        ({"document": {"repo": "https://h/r", "commit": "m", "patterns": ["../x.md"]}}, "leaves its folder"),
        ({"document": {"repo": "https://u:secret@h/r", "commit": "m", "patterns": ["x.md"]}}, "holds a password"),
        ({"document": "a.md"}, "`document` must be a mapping"),
        ({"task_description": "x"}, "`task_description` is not a known key"),
        ({"seed_examples": knowledge()["seed_examples"][:4]}, "needs at least 5 seed examples and has 4"),
    ],
)
def test_faults_of_knowledge(tmp_path: Path, more: dict[str, Any], words: str) -> None:
    write(tmp_path, "knowledge/a", knowledge(**more))
    told = errors(tmp_path)
    assert words in "\n".join(told)
    assert "secret" not in "\n".join(told)


def test_three_pairs_are_wanted_and_more_keys_tolerated_there(tmp_path: Path) -> None:
    content = knowledge()
    content["seed_examples"][0]["questions_and_answers"] = [{"question": "q", "answer": "a"}]
    write(tmp_path, "knowledge/a", content)
    assert "needs at least 3 question-answer pairs and has 1" in errors(tmp_path)[0]
    content["seed_examples"][0]["questions_and_answers"] = [
        {"question": f"q{n}", "answer": "a", "note": "x"} for n in range(4)
    ]
    assert len(read_one(tmp_path, "knowledge/a", content).seeds[0].pairs) == 4


def test_errors_of_all_files_come_together(tmp_path: Path) -> None:
    write(tmp_path, "compositional_skills/good", skill())
    write(tmp_path, "compositional_skills/one", skill(seeds=4, extra=1))
    write(tmp_path, "knowledge/broken", "a: [")
    write(tmp_path, "knowledge/empty", "")
    write(tmp_path, "knowledge/list", "- a\n")
    told = errors(tmp_path)
    assert [line.split(":")[0] for line in told] == [
        "compositional_skills/one/qna.yaml",
        "compositional_skills/one/qna.yaml",
        "knowledge/broken/qna.yaml",
        "knowledge/empty/qna.yaml",
        "knowledge/list/qna.yaml",
    ]
    with pytest.raises(InputErrors, match=r"5 errors in 4 files"):
        read_taxonomy(tmp_path)


def test_an_empty_taxonomy_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "knowledge").mkdir()
    with pytest.raises(InputError, match="the taxonomy is empty") as error:
        read_taxonomy(tmp_path)
    assert str(tmp_path) in error.value.message and "ilab taxonomy new" in error.value.hint
    with pytest.raises(InputError, match="no such file or folder"):
        read_taxonomy(tmp_path / "none")
    write(tmp_path, "knowledge/science/a", knowledge())
    with pytest.raises(InputError) as error:
        read_taxonomy(tmp_path / "knowledge")
    assert error.value.hint == f"give the folder above it: {tmp_path}"


def test_other_spellings_and_links_are_warned_about(tmp_path: Path) -> None:
    good = write(tmp_path, "knowledge/a", knowledge())
    for name in ("qna.yml", "QNA.yaml", "eval.yml"):
        (good.parent / name).write_text("x")
    (tmp_path / "knowledge/b").symlink_to(tmp_path / "knowledge/a")
    (tmp_path / "knowledge/c").mkdir()
    (tmp_path / "knowledge/c/eval.yaml").write_text("x")
    reading = read_taxonomy(tmp_path)
    assert [leaf.path for leaf in reading.leaves] == ["knowledge/a"]
    assert [warning.split(":")[0] for warning in reading.warnings] == [
        "knowledge/a/QNA.yaml",
        "knowledge/a/eval.yml",
        "knowledge/a/qna.yml",
        "knowledge/b",
        "knowledge/c/eval.yaml",
    ]


def test_links_out_of_the_taxonomy_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "taxonomy"
    outside = write(tmp_path, "outside", knowledge())
    (root / "knowledge/a").mkdir(parents=True)
    (root / "knowledge/a/qna.yaml").symlink_to(outside)
    assert "leaves the taxonomy" in errors(root)[0]


def test_a_single_file_in_and_outside_a_tree(tmp_path: Path) -> None:
    inside = write(tmp_path, "tree/knowledge/science/kiln", knowledge())
    reading = read_taxonomy(inside)
    assert reading.leaves == read_taxonomy(tmp_path / "tree").leaves
    assert reading.root == tmp_path / "tree"
    alone = read_taxonomy(write(tmp_path, "kiln", knowledge(1)))
    assert [(leaf.path, str(leaf.place)) for leaf in alone.leaves] == [("knowledge/kiln", "qna.yaml:1:1")]
    assert read_taxonomy(write(tmp_path, "poems", skill())).leaves[0].path == "compositional_skills/poems"
    assert read_taxonomy(tmp_path / "poems").leaves[0].path == "compositional_skills/poems"
    shutil.move(tmp_path / "poems/qna.yaml", tmp_path / "poems/mine.yaml")
    with pytest.raises(InputError, match=r"must be named qna\.yaml"):
        read_taxonomy(tmp_path / "poems/mine.yaml")


def test_the_digest_covers_what_is_taught_and_nothing_else(tmp_path: Path) -> None:
    def digest(content: dict[str, Any] | str, beside: str = "") -> str:
        path = write(tmp_path, "knowledge/a", content)
        (path.parent / "attribution.txt").write_text(beside)
        return str(read_taxonomy(tmp_path).leaves[0].digest)

    base = digest(knowledge())
    assert digest(knowledge(created_by="other"), "License: MIT") == base
    assert digest("# comment\n\n" + yaml.safe_dump(knowledge(), sort_keys=True, indent=4, default_style='"')) == base
    for change in ({"domain": "x"}, {"document_outline": "x"}, {"document": {"path": "x.md"}}):
        assert digest(knowledge(**change)) != base
    changed = knowledge()
    changed["seed_examples"][4]["questions_and_answers"][2]["answer"] = "x"
    assert digest(changed) != base


def test_names_that_would_break_ids_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "knowledge/a#b", knowledge())
    assert "rename the folder" in errors(tmp_path)[0]


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not here")
def test_the_public_taxonomy_is_read() -> None:
    reading: Reading = read_taxonomy(DATA / "instructlab-taxonomy")
    kinds = [leaf.kind for leaf in reading.leaves]
    assert (kinds.count("knowledge"), kinds.count("grounded"), kinds.count("freeform")) == (2, 2, 12)
    assert all(leaf.attribution for leaf in reading.leaves if leaf.version == 3)
    assert sum(len(leaf.seeds) for leaf in reading.leaves) == 77


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not here")
def test_the_konflux_leaf_is_read() -> None:
    (leaf,) = read_taxonomy(DATA / "konflux-taxonomy").leaves
    assert (leaf.path, leaf.kind, leaf.version, len(leaf.seeds)) == (
        "knowledge/konflux-taxonomy",
        "knowledge",
        1,
        5,
    )
    assert leaf.documents[0].patterns == ("markdown/*.md",)
    assert leaf.seeds[1].pairs[0].answer == "Konflux is largely based on OpenShift, Tekton, and ArgoCD."


def test_the_shipped_example_is_read() -> None:
    reading = read_taxonomy(EXAMPLES / "quickstart" / "taxonomy")
    assert reading.warnings == ()
    assert {leaf.kind for leaf in reading.leaves} == {"knowledge", "grounded", "freeform"}
    assert all({item.split for item in leaf.items} == {"dev", "test"} for leaf in reading.leaves)


NOISE = st.sampled_from(
    ["version", "seed_examples", "document", "path", "question", "answer", "context", "patterns", "x"]
)
TREES = st.recursive(
    st.one_of(st.text(max_size=5), st.integers(0, 9), st.none(), st.booleans()),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(NOISE, inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([skill, knowledge]), st.sampled_from([1, 2, 3]), st.dictionaries(NOISE, TREES, max_size=3))
def test_wrong_shapes_give_input_errors_only(tmp_path_factory, make, version, noise) -> None:  # type: ignore[no-untyped-def]
    root = tmp_path_factory.mktemp("t")
    path = write(root, "knowledge/a", make(version, **{key: value for key, value in noise.items() if key != "version"}))
    try:
        assert len(read_taxonomy(root).leaves) == 1
    except InputErrors as error:
        assert all(problem.where.startswith("knowledge/a/qna.yaml:") for problem in error.errors)
    shutil.rmtree(path.parents[2])
