"""The nineteen cases of upstream's own tests of `diff`, on real repositories and the real command line.

Same inputs and meaning; where ours differs it is for the better: mistakes end with 2, not 1, each has its line and
column, the order is stable, formatting and old versions are no mistakes, and no traceback is ever shown.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

NEW = "compositional_skills/new/qna.yaml"
TRACKED = "compositional_skills/tracked/qna.yaml"
ODD = "compositional_skills/writing/new/qna"
LEAF = "compositional_skills/leaf/qna.yaml"
KNOWLEDGE = "knowledge/old/qna.yaml"
PAIRS = [{"question": f"What is {n}?", "answer": f"It is {n}."} for n in range(5)]
HEAD = {"version": 2, "created_by": "someone", "task_description": "Say what a number is."}
SKILL = yaml.safe_dump({**HEAD, "seed_examples": PAIRS}, sort_keys=False)
FIRST = yaml.safe_dump({**HEAD, "version": 1, "seed_examples": PAIRS}, sort_keys=False)
SCANTY = yaml.safe_dump({**HEAD, "seed_examples": PAIRS[:1]}, sort_keys=False)
# All that upstream's lint refuses: blank lines, blanks at line ends, long lines, odd indentation, no final newline.
UNTIDY = "\n\n" + SKILL.replace("someone", f"'someone {'long ' * 40}'  \n\n\n\n").replace("- q", "-   q").rstrip()
UNTIDY = UNTIDY.replace("\n  answer", "\n    answer") + "\n\n\n   \n\n#"
BROKEN = SKILL.replace("answer: It is 3.", "answer: It is: 3.")
OLD_KNOWLEDGE = yaml.safe_dump(
    {
        **HEAD,
        "domain": "numbers",
        "seed_examples": PAIRS,
        "document": {"repo": "https://example.org/numbers.git", "commit": "a0c3c8e", "patterns": ["*.md"]},
    }
)
RULES = "rules:\n  line-length: {max: 180}\n"


@dataclass(frozen=True)
class Case:
    """``files`` are untracked and ``tracked`` committed on main; ``{root}`` in texts is the taxonomy's folder.

    ``listed`` are the lines before the one that says that all is well, which is expected where ``code`` is 0.
    ``told`` are patterns of standard error, in order; without any it must be empty.
    """

    name: str
    files: dict[str, str]
    listed: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    code: int = 0
    tracked: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    path: str = "{root}"
    more: tuple[str, ...] = ("--taxonomy-base", "main")

    @property
    def silent(self) -> bool:
        return "--quiet" in self.more


QUIET = ("--taxonomy-base", "main", "--quiet")
NOTHING = r"no leaf changed since main \(commit [0-9a-f]{10}\); "
# The line of a place is worked out from the text, not copied from an output.
BROKEN_LINE = BROKEN.split("\n").index("  answer: It is: 3.") + 1
BROKEN_AT = rf"{LEAF}:{BROKEN_LINE}:{len('  answer: It is: ') - 1}: error: "
SCANTY_LINE = SCANTY.split("\n").index("seed_examples:") + 2
CASES = [
    Case("lists what is untracked and not what the base has", {NEW: SKILL}, (NEW,), tracked=(TRACKED,)),
    Case(
        "the empty base lists every leaf, sorted",
        {NEW: SKILL, "foundational_skills/a/qna.yaml": SKILL},
        (NEW, TRACKED, "foundational_skills/a/qna.yaml"),
        tracked=(TRACKED,),
        more=("--taxonomy-base", "empty"),
    ),
    Case(
        "a leaf that is gone is not listed, and why is told",
        {},
        told=(NOTHING, rf"{TRACKED}: not listed: was deleted"),
        tracked=(TRACKED,),
        removed=(TRACKED,),
    ),
    Case("another file beside is no leaf", {f"{ODD}.txt": SKILL}, told=(NOTHING + "1 changed or untracked file ",)),
    Case(
        "qna.yml is not read, which is told",
        {f"{ODD}.yml": SKILL},
        told=(NOTHING, rf"{ODD}\.yml: not listed: must be named qna\.yaml"),
    ),
    Case(
        "qna.YAML is not read, which is told",
        {f"{ODD}.YAML": SKILL},
        told=(NOTHING, rf"{ODD}\.YAML: not listed: must be named qna\.yaml"),
    ),
    Case(
        "a base that does not exist",
        {NEW: SKILL},
        told=("'invalid' is no branch, tag or commit",),
        code=2,
        more=("--taxonomy-base", "invalid"),
    ),
    Case(
        "a taxonomy that does not exist",
        {},
        told=(r"{root}/no/where: there is no such file or folder",),
        code=2,
        path="{root}/no/where",
    ),
    Case("a right leaf", {LEAF: FIRST}, (LEAF,)),
    Case("a right leaf, given as a file", {LEAF: FIRST}, ("{root}/" + LEAF,), path="{root}/" + LEAF),
    Case("a right leaf, quietly", {LEAF: FIRST}, more=QUIET),
    Case("a right leaf, given as a file, quietly", {LEAF: FIRST}, path="{root}/" + LEAF, more=QUIET),
    Case("untidy formatting is no mistake", {LEAF: UNTIDY}, (LEAF,)),
    Case("untidy formatting is no mistake, quietly", {LEAF: UNTIDY}, more=QUIET),
    Case(
        "rules for the formatting are taken and not needed",
        {LEAF: UNTIDY, "rules.yaml": RULES},
        more=(*QUIET, "--yaml-rules", "{root}/rules.yaml"),
    ),
    Case(
        "too few seed examples",
        {LEAF: SCANTY},
        (LEAF,),
        (rf"{LEAF}:{SCANTY_LINE}:1: error: `seed_examples` .*5.* 1", "1 error in 1 file"),
        code=2,
    ),
    Case("knowledge of an old version is read", {KNOWLEDGE: OLD_KNOWLEDGE}, (KNOWLEDGE,)),
    Case(
        "a broken file of another name is nobody's leaf",
        {LEAF.replace("qna", "qna_broken"): BROKEN},
        told=(NOTHING + "1 changed or untracked file ",),
    ),
    Case("a broken file of another name, quietly", {LEAF.replace("qna", "qna_broken"): BROKEN}, more=QUIET),
    # Upstream's "invalid YAML" is only untidy (above). These are the ones that really cannot be read.
    Case("what is not YAML", {LEAF: BROKEN}, (LEAF,), (BROKEN_AT, "1 error in 1 file"), code=2),
    Case("what is not YAML, quietly", {LEAF: BROKEN}, code=2, more=QUIET),
    Case("what is not YAML, given as a file, quietly", {LEAF: BROKEN}, code=2, path="{root}/" + LEAF, more=QUIET),
]


def git(folder: Path, *arguments: str) -> None:
    names = ("-c", "user.name=t", "-c", "user.email=t@example", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *names, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Case], subprocess.CompletedProcess[str]]:
    """Lays out a case and runs `ilab taxonomy diff` on it from the taxonomy's folder."""
    for name in ("GITHUB_ACTIONS", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "taxonomy"
    root.mkdir()

    def write(name: str, text: str) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)

    def go(case: Case) -> subprocess.CompletedProcess[str]:
        git(root, "init", "--quiet")
        write("README.md", "A taxonomy.\n")
        for name in case.tracked:
            write(name, SKILL)
        git(root, "add", "--all")
        git(root, "commit", "--quiet", "-m", "first")
        for name in case.removed:
            (root / name).unlink()
        for name, text in case.files.items():
            write(name, text)
        more = [part.format(root=root) for part in case.more]
        arguments = ["--taxonomy-path", case.path.format(root=root), *more]
        command = [sys.executable, "-m", "ilab", "taxonomy", "diff", *arguments]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)

    return go


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_of_upstream(
    case: Case, run: Callable[[Case], subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = run(case)
    root = str(tmp_path / "taxonomy")
    lines = [line.format(root=root) for line in case.listed]
    if not case.silent and not case.code:
        lines.append(f"Taxonomy in {case.path.format(root=root)} is valid :)")
    assert done.stdout.splitlines() == lines
    assert done.returncode == case.code
    assert "Traceback" not in done.stderr
    if case.silent or not case.told:
        assert done.stderr == ""
    at = 0
    for pattern in case.told:
        found = re.compile(pattern.replace("{root}", re.escape(root))).search(done.stderr, at)
        assert found, (pattern, done.stderr)
        at = found.end()
