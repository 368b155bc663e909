"""``ilab taxonomy upgrade``: the form of version 3 with the same texts and comments, or exactly what is missing."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from ilab.cli.app import Options
from ilab.cli.taxonomy_edit import upgrade
from ilab.data import Leaf
from ilab.errors import InputError, InputErrors
from ilab.taxonomy.fix import fix_text
from ilab.taxonomy.read import read_taxonomy
from ilab.taxonomy.rewrite import comments
from ilab.taxonomy.support import Passages
from ilab.taxonomy.upgrade import upgrade_text

THINGS = {
    "kiln": ("The tavrin kiln is fired with beech wood.", ["What is the fuel of the kiln?", "beech wood"]),
    "ferry": ("The ferry crosses the Varn in 14 minutes.", ["How long does the ferry take?", "14 minutes"]),
    "tower": ("The tower of Dunmarrow has a copper roof.", ["Which metal lies on the tower?", "copper"]),
    "bird": ("The chickadee hides seeds under bark.", ["Where does the chickadee hide seeds?", "under bark"]),
    "lamp": ("The lamp turns crimson during a fault.", ["Which colour means a fault of the lamp?", "crimson"]),
}
PASSAGES = [text for text, _ in THINGS.values()]
SKILL = """# SPDX-License-Identifier: Apache-2.0
---
created_by: t  # a person
seed_examples:
# sums
- question: 'What is one
    and one?'
  answer: two
- {question: "What is 2+1?", answer: three}
- answer: |
    four

  question: What is 2+2?  # easy
- question: What is 2+3?
  answer: >-
    five
- question: What is 3+3?
  answer: six
task_description: To add
"""


def knowledge(version: str = "version: 1\n", copies: int = 3) -> str:
    """Pairs about five things, mixed, with comments; each is asked about ``copies`` times."""
    lines = [
        f"  # {name} {copy}\n  - question: {question} ({copy})\n    answer: |\n      {answer}\n    # end {name} {copy}\n"
        for copy in range(copies)
        for name, (_, (question, answer)) in THINGS.items()
    ]
    head = f"# made by hand\n{version}task_description: Things  # of all sorts\ncreated_by: t\ndomain: things\n"
    return f"{head}seed_examples:\n{''.join(lines)}\n# where it stands\ndocument:\n  path: things.md\n"


def read(root: Path, text: str, leaf: str = "knowledge/a/things") -> Leaf:
    path = root / leaf / "qna.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    (found,) = read_taxonomy(path).leaves
    return found


def pairs(leaf: Leaf) -> Counter[tuple[str, str]]:
    return Counter((pair.question, pair.answer) for seed in leaf.seeds for pair in seed.pairs)


@pytest.mark.parametrize("version", ["", "version: 1\n", "version: 2  # old\n"])
def test_knowledge(tmp_path: Path, version: str) -> None:
    old = knowledge(version)
    done = upgrade_text(old, "knowledge/a/things/qna.yaml", ["Something else altogether.", *PASSAGES, PASSAGES[0]])
    assert (done.missing, done.drafts) == ((), 0)
    before, after = read(tmp_path / "old", old), read(tmp_path / "new", done.text)
    assert after.version == 3
    assert (after.outline, after.domain) == (before.task, before.domain)
    assert [ref.patterns for ref in after.documents] == [ref.patterns for ref in before.documents]
    assert pairs(after) == pairs(before)
    assert [seed.context for seed in after.seeds] == PASSAGES
    for seed, (_, (question, _)) in zip(after.seeds, THINGS.values(), strict=True):
        assert [pair.question for pair in seed.pairs] == [f"{question} ({copy})" for copy in range(3)]
    lines = [line.strip() for line in done.text.splitlines()]
    assert (
        [line for line in lines if line.startswith("#")]
        == [
            "# made by hand",
            "# kiln 0",  # what stands above the first pair stays there
            *[f"# {word}{name} {copy}" for name in THINGS for copy in range(3) for word in ("", "end ")][1:],
            "# where it stands",
        ]
    )
    assert upgrade_text(done.text, "knowledge/a/things/qna.yaml") == type(done)(done.text)
    assert fix_text(done.text.encode(), "q").text == done.text.encode()


def test_only_what_has_to_change_changes_in_a_skill() -> None:
    done = upgrade_text(SKILL, "compositional_skills/a/qna.yaml")
    assert done.text == SKILL.replace("created_by", "version: 3\ncreated_by", 1)
    second = SKILL.replace("created_by", "version: '2' # old\ncreated_by", 1)
    assert upgrade_text(second, "q").text == second.replace("'2'", "3")
    assert [change.what for change in upgrade_text(second, "q").changes] == ["version 2 becomes 3"]


@pytest.mark.parametrize("empty", ["", " ''", ' ""', " null", " ~", " |\n", "  # to be written"])
def test_an_empty_task_gets_the_name_of_the_folder(tmp_path: Path, empty: str) -> None:
    old = SKILL.replace(" To add\n", f"{empty}\n") + "# the end\n"
    name = "compositional_skills/simple_sums/qna.yaml"
    done = upgrade_text(old, name)
    leaf = read(tmp_path, done.text, "compositional_skills/simple_sums")
    assert leaf.task == "simple sums"
    assert comments(old) == comments(done.text)
    assert "`simple sums` proposed, because it was empty" in [change.what for change in done.changes]


@pytest.mark.parametrize("folder", ["it's_c#: a {test}", "yes", "3", "!!", "über_größe"])
def test_any_folder_gives_a_title(tmp_path: Path, folder: str) -> None:
    done = upgrade_text(SKILL.replace(" To add", ""), f"compositional_skills/{folder}/qna.yaml")
    tree = yaml.safe_load(done.text)
    assert tree["task_description"]
    assert isinstance(tree["task_description"], str)


def test_what_a_skill_lacks_is_told_with_its_place() -> None:
    seeds = "".join(f"- question: {question}\n  answer: a\n" for question in ("one", "two", "one"))
    old = f"# a skill\ncreated_by: t\ntask_description: x\nseed_examples:\n{seeds}"
    done = upgrade_text(old, "compositional_skills/a/qna.yaml")
    assert done.text == old
    assert [error.where for error in done.missing] == [
        "compositional_skills/a/qna.yaml:5:1",
        "compositional_skills/a/qna.yaml:9:3",
    ]
    assert "needs at least 5" in done.missing[0].message


def test_what_knowledge_lacks_is_told_with_its_place() -> None:
    old = knowledge(copies=2).replace("under bark", "in the cellar of Ulm").replace("chickadee hide seeds", "cat sleep")
    done = upgrade_text(old, "knowledge/q.yaml", PASSAGES)
    assert done.text == old
    told = [f"{error.where} {error.message}" for error in done.missing]
    assert told[0].startswith(
        "knowledge/q.yaml:23:5 no passage of the documents clearly answers `Where does the cat sleep?"
    )
    assert [line.split()[0] for line in told[2:-1]] == [f"knowledge/q.yaml:{at}:5" for at in (8, 13, 18, 28)]
    assert all("has 2 of the 3 pairs it needs" in line for line in told[2:-1])
    count = "version 3 wants pairs about 5 passages of the documents or more; clear so far: 4"
    assert told[-1] == f"knowledge/q.yaml:8:3 {count}"


def test_without_documents_nothing_is_made_up() -> None:
    old = knowledge()
    done = upgrade_text(old, "knowledge/q.yaml")
    assert done.text == old
    (error,) = done.missing
    assert (error.where, error.message) == (
        "knowledge/q.yaml:8:3",
        "15 pair(s) have no context, and no document is at hand to take it from",
    )


@pytest.mark.parametrize("passages", [[], PASSAGES[:3], PASSAGES])
def test_drafts(tmp_path: Path, passages: list[str]) -> None:
    old = knowledge(copies=2)
    name = "knowledge/a/things/qna.yaml"
    done = upgrade_text(old, name, passages, drafts=True)
    assert done.drafts == done.text.count("draft: true  # ") >= 5
    (tmp_path / "knowledge/a/things").mkdir(parents=True)
    (tmp_path / name).write_text(done.text)
    with pytest.raises(InputErrors):
        read_taxonomy(tmp_path)
    tree = yaml.safe_load(done.text)
    clear = [seed for seed in tree["seed_examples"] if "draft" not in seed]
    assert [seed["context"].strip() for seed in clear] == passages
    written = [pair for seed in tree["seed_examples"] for pair in seed["questions_and_answers"] if pair["question"]]
    assert Counter((pair["question"], pair["answer"].strip()) for pair in written) == pairs(read(tmp_path / "old", old))
    assert set(comments(old)) <= set(comments(done.text))
    assert upgrade_text(done.text, name, passages, drafts=True) == type(done)(done.text)
    complete = done.text.replace("''", "'something to fill in'")
    tree = yaml.safe_load(complete)
    for seed in tree["seed_examples"]:
        seed.pop("draft", None)
        inner = [{key: pair[key] for key in ("question", "answer")} for pair in seed["questions_and_answers"]]
        seed["questions_and_answers"] = inner + [{"question": f"more {n}?", "answer": "yes"} for n in range(2)]
    unique = [dict(seed, context=f"{seed['context']} {at}") for at, seed in enumerate(tree["seed_examples"])]
    (tmp_path / name).write_text(yaml.safe_dump(tree | {"seed_examples": unique}))
    (leaf,) = read_taxonomy(tmp_path / name).leaves
    assert len(leaf.seeds) >= 5


def test_drafts_of_a_grounded_skill(tmp_path: Path) -> None:
    seeds = "".join(f"- question: q{n}?\n  context: c{n}\n  answer: a{n}\n" for n in range(3))
    old = f"created_by: t\ntask_description: x\nseed_examples:\n{seeds}"
    done = upgrade_text(old, "compositional_skills/a/qna.yaml", drafts=True)
    form = "- draft: true  # 2 more examples are needed: write them here, then remove this line\n"
    assert done.text == f"version: 3\n{old}{form}  context: ''\n  question: ''\n  answer: ''\n"
    assert done.drafts == 1


def test_a_passage_stays_word_for_word(tmp_path: Path) -> None:
    passages = [
        f"   Indented: {PASSAGES[0]}\n\n# not a comment\n  - 'list'\n\n\n| a | b |",
        f"\n\n\t{PASSAGES[1]}\n\ttab",
        f"{PASSAGES[2]}  \nüber “quotes” 🙂 \\n %d: *x* &y !z",
        *PASSAGES[3:],
    ]
    leaf = read(tmp_path, upgrade_text(knowledge(), "knowledge/q", passages).text)
    expected = ["\n".join(line.rstrip() for line in text.split("\n")).lstrip("\n") for text in passages]
    assert [seed.context for seed in leaf.seeds] == expected


def test_passages_that_no_block_can_hold_are_passed_over() -> None:
    done = upgrade_text(knowledge(), "q", [*PASSAGES[:4], PASSAGES[4] + "\x0bx", PASSAGES[4] + "\u2028x"])
    assert "clear so far: 4" in done.missing[-1].message


@pytest.mark.parametrize(
    "text",
    [
        "{created_by: t, task_description: x, seed_examples: [{question: q, answer: a}]}\n",
        "created_by: t\ntask_description: x\nseed_examples: [{question: q, answer: a}]\n",
        "created_by: t\ntask_description: x\nseed_examples: &s\n- {question: q, answer: a}\n",
    ],
)
def test_brackets_are_left_alone_and_told(text: str) -> None:
    with pytest.raises(InputError, match="in a form that cannot be rewritten") as error:
        upgrade_text(text, "compositional_skills/q.yaml", drafts=True)
    assert error.value.where.startswith("compositional_skills/q.yaml:")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no leaf"),
        ("- a\n", "holds no leaf"),
        ("version: 4\n" + SKILL, "is none that is known"),
        ("version: 1\nversion: 1\ncreated_by: t\n", "stands here twice"),
        ("a: [b\n", "never closed"),
        ("a: &a [*a]\n", ""),
        ("created_by: t\nseed_examples:\n- a: b\n", "task_description"),
    ],
)
def test_files_with_mistakes_of_their_own(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        upgrade_text(text.replace("---\n", ""), "q", drafts=True)
    assert message in str(error.value)


NOTES = st.sampled_from(["", "", "# note\n", "\n", "\n\n# note: 'x'\n  # deeper\n"])
VALUES = st.sampled_from(
    [
        "x",
        "'it''s\n      # no comment'",
        '"a\\\n      b"',
        "|\n      y\n\n      # z",
        ">-\n      v\n      w",
        "a\n      b",
    ]
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.tuples(NOTES, VALUES, NOTES), min_size=1, max_size=7), st.sampled_from([0, 2, 4]), st.booleans())
def test_pairs_and_comments_survive_any_layout(seeds: list[tuple[str, str, str]], indent: int, drafts: bool) -> None:
    pad = " " * indent
    text = "document: {path: x.md}\ncreated_by: t\ndomain: d\ntask_description: t\nseed_examples:\n"
    for number, (above, value, inside) in enumerate(seeds):
        text += f"{above}{pad}- question: kiln {number} beech\n{inside.replace('#', pad + '  #')}{pad}  answer: {value.replace('      ', pad + '    ')}\n"
    text += "# end\n"
    done = upgrade_text(text, "q", PASSAGES, drafts=drafts)
    if not drafts:
        assert done.text == text
        assert done.missing
        return
    old, new = yaml.safe_load(text), yaml.safe_load(done.text)
    expected = [(seed["question"], str(seed["answer"]).strip()) for seed in old["seed_examples"]]
    found = [
        (pair["question"], str(pair["answer"]).strip())
        for seed in new["seed_examples"]
        for pair in seed["questions_and_answers"]
        if pair["question"]
    ]
    assert sorted(found) == sorted(expected)
    assert new["document_outline"] == "t"
    assert not Counter(comments(text)) - Counter(comments(done.text))
    assert fix_text(done.text.encode(), "q").problem is None


def test_support_prefers_the_answer_and_knows_when_it_is_not_sure() -> None:
    index = Passages([*PASSAGES, "The ferry and the kiln stand beside the tower."])
    best = index.support("Which wood is used for the kiln?", "beech")
    assert best is not None
    assert (best.passage, best.clear) == (0, True)
    unsure = index.support("What stands beside what?", "nobody knows")
    assert unsure is not None
    assert not unsure.clear
    assert index.support("Où?", "là-bas") is None
    same = Passages([PASSAGES[0], PASSAGES[0]]).support("kiln?", "beech")
    assert same is not None
    assert not same.clear


def test_knowledge_that_people_grounded_gets_the_same_contexts_back(shared: Path, tmp_path: Path) -> None:
    (bird,) = read_taxonomy(
        shared / "data/instructlab-taxonomy/knowledge/science/animals/birds/black_capped_chickadee/qna.yaml"
    ).leaves
    seeds = [{"question": pair.question, "answer": pair.answer} for seed in bird.seeds for pair in seed.pairs]
    old: dict[str, Any] = {"version": 2, "created_by": "t", "task_description": "Birds.", "domain": "birds"}
    old |= {"seed_examples": seeds, "document": {"path": "x.md"}}
    done = upgrade_text(
        yaml.safe_dump(old, sort_keys=False), "knowledge/q", [seed.context or "" for seed in bird.seeds]
    )
    assert done.missing == ()
    leaf = read(tmp_path, done.text)
    assert [(seed.context, len(seed.pairs)) for seed in leaf.seeds] == [
        ("\n".join(line.rstrip() for line in (seed.context or "").split("\n")), 3) for seed in bird.seeds
    ]


def run(*arguments: str, sets: tuple[str, ...] = (), as_json: bool = False) -> Result:
    options = Options(Path(), sets, None, as_json=as_json, verbose=False)
    done = CliRunner().invoke(upgrade, list(arguments), obj=options)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a taxonomy with old knowledge whose document is beside it, and an old skill."""
    monkeypatch.chdir(tmp_path)
    things, sums = tmp_path / "knowledge/a/things", tmp_path / "compositional_skills/sums"
    things.mkdir(parents=True)
    sums.mkdir(parents=True)
    (things / "qna.yaml").write_text(knowledge())
    (things / "things.md").write_text(
        "# Things\n\n" + "\n\n".join(f"## {n}\n\n{text}" for n, text in enumerate(PASSAGES))
    )
    (sums / "qna.yaml").write_text(SKILL)
    return tmp_path


def test_command_takes_contexts_from_the_documents(tree: Path) -> None:
    old = {leaf.path: leaf for leaf in read_taxonomy(tree).leaves}
    texts = {path: path.read_text() for path in tree.rglob("qna.yaml")}
    for option in ("--dry-run", "--diff"):
        done = run(option)
        assert done.exit_code == 0
        assert done.output.endswith("2 files would be upgraded, 0 of version 3 already. Next: ilab taxonomy upgrade\n")
        assert {path: path.read_text() for path in texts} == texts
    assert "+version: 3\n" in run("--diff").output
    done = run()
    assert done.exit_code == 0
    assert "knowledge/a/things/qna.yaml:8: 15 pair(s) stand under 5 passage(s) of the documents\n" in done.output
    assert done.output.endswith("2 files upgraded, 0 of version 3 already. Next: ilab taxonomy check\n")
    new = {leaf.path: leaf for leaf in read_taxonomy(tree).leaves}
    assert {path: (leaf.kind, pairs(leaf)) for path, leaf in new.items()} == {
        path: (leaf.kind, pairs(leaf)) for path, leaf in old.items()
    }
    assert [seed.context for seed in new["knowledge/a/things"].seeds] == PASSAGES
    assert run().output == "0 files upgraded, 2 of version 3 already. Next: ilab taxonomy check\n"


def test_command_goes_on_without_documents(tree: Path) -> None:
    (tree / "knowledge/a/things/things.md").unlink()
    (tree / "compositional_skills/qna.yml").write_text(SKILL)
    done = run(as_json=True)
    assert done.exit_code == 2
    assert "documents that cannot be had are passed over" in done.stderr
    facts = json.loads(done.stdout)
    told = {one["file"]: one for one in facts["files"]}
    assert told["compositional_skills/sums/qna.yaml"]["errors"] == []
    assert "no document is at hand" in told["knowledge/a/things/qna.yaml"]["errors"][0]["message"]
    assert told["compositional_skills/qna.yml"]["errors"][0]["hint"] == "ilab taxonomy fix compositional_skills/qna.yml"
    assert facts["next"].endswith("ilab taxonomy upgrade --drafts")
    done = run("knowledge", "--drafts")
    assert done.exit_code == 0
    assert "place(s) marked `draft: true` for you to complete" in done.output
    assert done.output.endswith("this names them: ilab taxonomy check knowledge\n")


def test_the_public_taxonomy(shared: Path, tmp_path: Path) -> None:
    root = tmp_path / "taxonomy"
    shutil.copytree(shared / "data" / "instructlab-taxonomy", root)
    old = {leaf.path: leaf for leaf in read_taxonomy(root).leaves}
    done = run(str(root))
    assert done.exit_code == 2
    assert "2 files upgraded, 9 left alone, 5 of version 3 already." in done.output
    assert done.output.count("needs at least 5 seed examples and has 3") == 9
    assert {leaf.path: pairs(leaf) for leaf in read_taxonomy(root).leaves} == {
        path: pairs(leaf) for path, leaf in old.items()
    }
    assert run(str(root), "--drafts").exit_code == 0
    for path in root.rglob("qna.yaml"):
        tree = yaml.safe_load(path.read_text())
        leaf = old[path.parent.relative_to(root).as_posix()]
        assert tree["version"] == 3
        if leaf.version == 1:
            found = [
                (seed["question"].strip(), seed["answer"].strip()) for seed in tree["seed_examples"] if seed["question"]
            ]
            assert found == [(pair.question.strip(), pair.answer.strip()) for seed in leaf.seeds for pair in seed.pairs]
    assert "0 files upgraded, 16 of version 3 already." in run(str(root), "--drafts").output


def test_konflux(shared: Path, tmp_path: Path) -> None:
    root = tmp_path / "konflux"
    shutil.copytree(shared / "data" / "konflux-taxonomy", root)
    (leaf,) = read_taxonomy(root).leaves
    mirror = f'where.documents.mirrors={{"https://github.com/bbrowning/konflux-taxonomy.git": "{root}"}}'
    done = run(str(root), sets=(mirror,))
    assert done.exit_code == 2
    assert done.output.count("has 1 of the 3 pairs it needs") == 5
    assert run(str(root), "--drafts", sets=(mirror,)).exit_code == 0
    tree = yaml.safe_load((root / "qna.yaml").read_text())
    for seed, old in zip(tree["seed_examples"], leaf.seeds, strict=True):
        first = seed["questions_and_answers"][0]
        assert (first["question"], first["answer"].rstrip()) == (old.pairs[0].question, old.pairs[0].answer)
    starts = [
        "Developing an app",
        "Under the hood, Konflux is",
        "The Enterprise Contract",
        "To use your own code",
        "By default, Konflux",
    ]
    for seed, start in zip(tree["seed_examples"], starts, strict=True):
        assert seed["context"].startswith(start)
