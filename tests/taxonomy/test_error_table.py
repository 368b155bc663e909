"""What InstructLab's `diff` told its users about their mistakes (often a traceback), and what is told here instead.

Each row is a case of that tool's error table through the real program, for `diff` and, where it applies, `check`.
Mistakes of the author's end with 2; whatever happens, there is no traceback, and the messages name the place.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

SKILL = "compositional_skills/a/qna.yaml"
KNOWLEDGE = "knowledge/b/qna.yaml"
PAIRS = [{"question": f"What is {n}?", "answer": f"It is {n}."} for n in range(5)]
GOOD = yaml.safe_dump(
    {"version": 3, "created_by": "t", "task_description": "d", "seed_examples": PAIRS}, sort_keys=False
)
OLD_KNOWLEDGE: dict[str, Any] = {
    "version": 2,
    "created_by": "t",
    "domain": "d",
    "task_description": "d",
    "seed_examples": PAIRS,
    "document": {"repo": "https://example.invalid/r.git", "commit": "main", "patterns": ["*.md"]},
}


def ilab(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ilab", "taxonomy", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert "Traceback" not in done.stdout + done.stderr
    return done


def git(folder: Path, *arguments: str) -> None:
    names = ("-c", "user.name=t", "-c", "user.email=t@example", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *names, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with one good leaf on `main`."""
    write(tmp_path, GOOD)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def write(root: Path, text: str, name: str = SKILL) -> str:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    return name


def test_valid_lists_the_paths_and_says_so(tree: Path) -> None:
    write(tree, GOOD, "compositional_skills/new/qna.yaml")
    done = ilab(tree, "diff")
    assert done.stdout == "compositional_skills/new/qna.yaml\nTaxonomy in . is valid :)\n"
    assert done.returncode == ilab(tree, "check").returncode == 0


def test_nothing_changed_says_what_was_looked_at(tree: Path) -> None:
    done = ilab(tree, "diff")
    assert (done.returncode, done.stdout) == (0, "Taxonomy in . is valid :)\n")
    assert re.search(r"no leaf changed since main \(commit [0-9a-f]{10}\); 0 changed or untracked files", done.stderr)


@pytest.mark.parametrize(("text", "code"), [(GOOD, 0), ("a: [", 2)])
def test_quiet_prints_nothing(tree: Path, text: str, code: int) -> None:
    write(tree, text, "compositional_skills/new/qna.yaml")
    done = ilab(tree, "diff", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


MISTAKES = {
    "schema errors, all of them, each with its place and a hint": (
        SKILL,
        GOOD.replace("task_description", "task_descriptoin").replace("answer: It is 2.", "anwser: It is 2."),
        [
            "3:1: error: `task_descriptoin` is not a known key",
            "did you mean `task_description`?",
            "10:3: error: `seed_examples[2].anwser` is not a known key",
            "did you mean `answer`?",
            "2 errors",
        ],
    ),
    "too few examples": (
        SKILL,
        GOOD.split("- question: What is 4?", maxsplit=1)[0],
        ["5:1: error: `seed_examples` needs at least 5 seed examples and has 4", "add 1 more"],
    ),
    "YAML syntax: a colon in a text without quotes": (
        SKILL,
        GOOD.replace("What is 1?", "What is this: 1?"),
        ["7:25: error: a `: ` stands where none can be", 'put the text in quotes: `question: "What is this: 1?"`'],
    ),
    "YAML syntax: a bracket that is never closed": (
        SKILL,
        "version: 3\nseed_examples: [\n  {question: a}",
        ["2:16: error: a `[` is opened here and never closed"],
    ),
    "YAML syntax: a tab": (
        SKILL,
        GOOD.replace("  answer: It is 3.", "\tanswer: It is 3."),
        ["12:1: error: a tab stands in the indentation", "use spaces"],
    ),
    "an unknown version": (
        SKILL,
        GOOD.replace("version: 3", "version: 9"),
        ["1:10: error: `version` is `9`; versions 1, 2 and 3 are known", "write `version: 3`"],
    ),
    "a version in words": (
        SKILL,
        GOOD.replace("version: 3", 'version: "two"'),
        ["1:10: error: `version` is `two`; versions 1, 2 and 3 are known", "1 error"],
    ),
    "an empty file": (SKILL, "", ["1:1: error: is empty", "`ilab taxonomy new` begins one"]),
    "a file that is only a comment": (SKILL, "# later\n", ["1:1: error: is empty"]),
    "no text at all": (SKILL, "\x00\x01", ["1:1: error: holds the control character U+0000"]),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_in_a_file(tree: Path, case: str) -> None:
    name, text, told = MISTAKES[case]
    write(tree, text, name)
    checked, compared, single = (
        ilab(tree, "check"),
        ilab(tree, "diff"),
        ilab(tree, "diff", "--taxonomy-path", name),
    )
    for done, output in ((checked, checked.stdout), (compared, compared.stderr), (single, single.stderr)):
        assert done.returncode == 2
        for words in told:
            assert (f"{name}:{words}" if words[0].isdigit() and ": error: " in words else words) in output
    assert compared.stdout == single.stdout == f"{name}\n"


def test_old_knowledge_is_read_and_the_way_on_told(tree: Path) -> None:
    for version in (1, 2):
        write(tree, yaml.safe_dump(OLD_KNOWLEDGE | {"version": version}), KNOWLEDGE)
        assert ilab(tree, "check").returncode == 0
        done = ilab(tree, "diff")
        assert (done.returncode, done.stdout) == (0, f"{KNOWLEDGE}\nTaxonomy in . is valid :)\n")


@pytest.mark.parametrize("command", [["check", "nowhere"], ["diff", "--taxonomy-path", "nowhere"]])
def test_a_path_that_is_missing(tree: Path, command: list[str]) -> None:
    done = ilab(tree, *command)
    assert (done.returncode, done.stdout) == (2, "")
    assert "nowhere: there is no such file or folder" in done.stderr
    assert "give the taxonomy's folder, or one qna.yaml" in done.stderr


def test_a_folder_outside_git(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    done = ilab(tmp_path, "diff", "--taxonomy-base", "main")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not in a git repository" in done.stderr and "--taxonomy-base empty" in done.stderr
    assert ilab(tmp_path, "diff", "--quiet", "--taxonomy-base", "main").stderr == ""
    assert ilab(tmp_path, "diff", "--taxonomy-base", "empty").returncode == 0


@pytest.mark.parametrize("base", ["maim", "origin/nowhere", "0123456"])
def test_a_base_that_is_missing(tree: Path, base: str) -> None:
    done = ilab(tree, "diff", "--taxonomy-base", base)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"the base {base!r} is no branch, tag or commit of this repository" in done.stderr
    assert "main" in done.stderr, "what there is, is told"


def test_document_repositories_are_not_fetched_for_a_look_at_the_leaves(tree: Path) -> None:
    """Upstream cloned them for every `diff`, and failed with them; here a build says what is wrong with them."""
    pairs = [{"question": f"What is {n}?", "answer": f"It is {n}."} for n in range(3)]
    seeds = [{"context": f"It is {n}.", "questions_and_answers": pairs} for n in range(5)]
    leaf = {key: value for key, value in OLD_KNOWLEDGE.items() if key != "task_description"}
    leaf |= {"version": 3, "document_outline": "o", "seed_examples": seeds}
    write(tree, yaml.safe_dump(leaf), KNOWLEDGE)
    assert ilab(tree, "diff").returncode == ilab(tree, "check").returncode == 0


@pytest.mark.parametrize("document", [{"path": "none.md"}, {"path": ["none/*.md"]}])
def test_a_pattern_that_matches_nothing_is_a_warning_at_its_place(tree: Path, document: dict[str, Any]) -> None:
    write(tree, yaml.safe_dump(OLD_KNOWLEDGE | {"document": document}, sort_keys=False), KNOWLEDGE)
    done = ilab(tree, "check")
    line = (tree / KNOWLEDGE).read_text().splitlines().index("document:") + 2
    assert f"{KNOWLEDGE}:{line}:3: warning: `none" in done.stdout
    assert "fits no file [no-document]" in done.stdout
    assert done.returncode == 0


def test_a_document_of_another_type_is_no_traceback(tree: Path) -> None:
    """Upstream refused every `.txt`; here text is read."""
    write(tree, yaml.safe_dump(OLD_KNOWLEDGE | {"document": {"path": "notes.txt"}}), KNOWLEDGE)
    write(tree, "Notes.\n", "knowledge/b/notes.txt")
    done = ilab(tree, "check")
    assert done.returncode == 0
    assert "no-document" not in done.stdout
