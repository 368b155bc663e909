"""Which leaves count as changed, in real repositories. The cases are those of InstructLab's own tests of `diff`."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ilab.documents.trees import matching
from ilab.errors import InputError
from ilab.taxonomy import worktree
from ilab.taxonomy.changes import Changes, find_changes

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = ROOT.parent / "shared" / "data" / "instructlab-taxonomy"
NEW = "compositional_skills/new/qna.yaml"
OLD = "compositional_skills/old/qna.yaml"
PAIRS = [{"question": f"What is {n}?", "answer": f"It is {n}."} for n in range(5)]
SKILL = yaml.safe_dump({"version": 3, "created_by": "t", "task_description": "d", "seed_examples": PAIRS})


def git(folder: Path, *arguments: str) -> str:
    names = ("-c", "user.name=t", "-c", "user.email=t@example", "-c", "init.defaultBranch=main", "-c", "gc.auto=0")
    done = subprocess.run(["git", *names, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def write(root: Path, name: str, text: str = SKILL) -> str:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    return name


def commit(root: Path, message: str = "change") -> str:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--allow-empty", "-m", message)
    return git(root, "rev-parse", "HEAD")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A taxonomy on `main` with one committed leaf and a remote that has it, too."""
    root = tmp_path / "taxonomy"
    root.mkdir()
    git(root, "init", "--quiet")
    write(root, OLD)
    commit(root)
    git(tmp_path, "clone", "--quiet", "--bare", str(root), str(tmp_path / "remote.git"))
    git(root, "remote", "add", "origin", str(tmp_path / "remote.git"))
    git(root, "fetch", "--quiet", "origin")
    return root


def changes(path: Path, base: str | None = "main") -> Changes:
    return find_changes(path, base, matching)


def names(path: Path, base: str | None = "main") -> list[str]:
    return list(changes(path, base).files)


def untracked(root: Path) -> None:
    write(root, NEW)


def staged(root: Path) -> None:
    write(root, NEW)
    git(root, "add", NEW)


def modified(root: Path) -> None:
    write(root, OLD, SKILL + "\n")
    write(root, NEW)


def renamed(root: Path) -> None:
    (root / NEW).parent.mkdir()
    git(root, "mv", OLD, NEW)


def moved_without_git(root: Path) -> None:
    (root / NEW).parent.mkdir()
    (root / OLD).rename(root / NEW)


def deleted(root: Path) -> None:
    (root / OLD).unlink()


def deleted_and_staged(root: Path) -> None:
    git(root, "rm", "--quiet", OLD)


def staged_then_gone(root: Path) -> None:
    staged(root)
    (root / NEW).unlink()


def forgotten_by_git(root: Path) -> None:
    git(root, "rm", "--quiet", "--cached", OLD)


def foundational(root: Path) -> None:
    write(root, "foundational_skills/deep/er/qna.yaml")


def odd_name(root: Path) -> None:
    write(root, 'knowledge/mit Leerzeichen/ünï "cøde"/qna.yaml')


@pytest.mark.parametrize("base", ["main", "origin/main", None, "HEAD", "the-tag"])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (untracked, [NEW]),
        (staged, [NEW]),
        (modified, [NEW, OLD]),
        (renamed, [NEW]),
        (moved_without_git, [NEW]),
        (deleted, []),
        (deleted_and_staged, []),
        (staged_then_gone, []),
        (forgotten_by_git, [OLD]),
        (foundational, ["foundational_skills/deep/er/qna.yaml"]),
        (odd_name, ['knowledge/mit Leerzeichen/ünï "cøde"/qna.yaml']),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_kind_of_change(
    tree: Path, change: Callable[[Path], None], expected: list[str], base: str | None
) -> None:
    git(tree, "tag", "the-tag")
    assert names(tree, base) == []
    change(tree)
    found = changes(tree, base)
    assert list(found.files) == expected
    assert [found.layout.name(file) for file in found.layout.files] == expected
    assert found.base == (base or "origin/main")


def test_commits_since_the_base_count(tree: Path) -> None:
    first = git(tree, "rev-parse", "HEAD")
    git(tree, "tag", "-a", "v1", "-m", "one")
    git(tree, "switch", "--quiet", "-c", "work/mine")
    write(tree, NEW)
    commit(tree)
    write(tree, "knowledge/x/README.md", "text")
    later = commit(tree)
    for base in ("main", "origin/main", first, first[:8], "v1", "HEAD~2"):
        assert names(tree, base) == [NEW], base
        assert changes(tree, base).commit == first
    assert names(tree, "work/mine") == [], "a local branch whose name has a slash is a base like any other"
    assert changes(tree, "HEAD").commit == later
    git(tree, "push", "--quiet", "origin", "work/mine")
    assert names(tree, "origin/work/mine") == []


def test_what_the_base_got_meanwhile_is_no_change_of_ours(tree: Path) -> None:
    git(tree, "switch", "--quiet", "-c", "mine")
    write(tree, NEW)
    commit(tree)
    git(tree, "switch", "--quiet", "main")
    write(tree, OLD, SKILL + "\n")
    write(tree, "knowledge/theirs/qna.yaml")
    commit(tree)
    git(tree, "switch", "--quiet", "mine")
    assert names(tree) == [NEW]


def test_the_way_back_goes_along_first_parents(tree: Path) -> None:
    """A merge of the base into the branch: with any parent the merge base would be the base's newest commit."""
    first = git(tree, "rev-parse", "HEAD")
    git(tree, "switch", "--quiet", "-c", "mine")
    write(tree, NEW)
    commit(tree)
    git(tree, "switch", "--quiet", "main")
    write(tree, "knowledge/theirs/qna.yaml")
    theirs = commit(tree)
    git(tree, "switch", "--quiet", "mine")
    git(tree, "merge", "--quiet", "-m", "merge", "main")
    assert git(tree, "merge-base", "HEAD", "main") == theirs
    found = changes(tree)
    assert found.commit == first
    assert list(found.files) == [NEW, "knowledge/theirs/qna.yaml"]


def test_a_branch_that_the_base_has_merged(tree: Path) -> None:
    """The base contains our branch by a second parent; only what came after counts."""
    git(tree, "switch", "--quiet", "-c", "mine")
    write(tree, NEW)
    merged = commit(tree)
    git(tree, "switch", "--quiet", "main")
    commit(tree, "theirs")
    git(tree, "merge", "--quiet", "--no-ff", "-m", "merge", "mine")
    git(tree, "switch", "--quiet", "mine")
    write(tree, "knowledge/later/qna.yaml")
    found = changes(tree)
    assert (found.commit, list(found.files)) == (merged, ["knowledge/later/qna.yaml"])


def test_main_stands_in_for_a_remote_that_is_not_there(tree: Path) -> None:
    git(tree, "remote", "remove", "origin")
    write(tree, NEW)
    found = changes(tree, None)
    assert (found.base, list(found.files)) == ("main", [NEW])
    git(tree, "branch", "--quiet", "-m", "main", "trunk")
    with pytest.raises(InputError, match="origin/main"):
        changes(tree, None)


def test_a_taxonomy_below_the_repository(tree: Path) -> None:
    write(tree, "here/knowledge/a/qna.yaml")
    write(tree, "knowledge/not_here/qna.yaml")
    assert names(tree / "here") == ["knowledge/a/qna.yaml"]
    commit(tree)
    write(tree, "here/knowledge/a/qna.yaml", SKILL + "\n")
    assert names(tree / "here", "HEAD") == ["knowledge/a/qna.yaml"]


def test_the_empty_base_needs_no_git(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tree, NEW)
    (tree / ".git").rename(tmp_path / "away")
    monkeypatch.setenv("PATH", "")
    found = changes(tree, "empty")
    assert (list(found.files), found.base, found.commit) == ([NEW, OLD], "empty", "")


@pytest.mark.parametrize("base", ["main", "no-such-base", "empty", None])
def test_a_single_file_stands_for_itself(tmp_path: Path, base: str | None) -> None:
    write(tmp_path, "qna.yaml")
    for path in (tmp_path / "qna.yaml", tmp_path):
        assert names(path, base) == ["qna.yaml"]


def test_errors_say_what_to_type(tree: Path, tmp_path: Path) -> None:
    def told(path: Path, base: str | None = None) -> str:
        with pytest.raises(InputError) as caught:
            changes(path, base)
        return str(caught.value)

    bare = tmp_path / "bare"
    (bare / "knowledge").mkdir(parents=True)
    assert "is not in a git repository" in told(bare) and "--taxonomy-base empty" in told(bare)
    git(bare, "init", "--quiet")
    assert "has no commit yet" in told(bare)
    assert "no such file or folder" in told(tmp_path / "nowhere", "empty")
    assert "no such file or folder" in told(tmp_path / "nowhere")
    assert "'mian' is no branch, tag or commit" in told(tree, "mian") and "did you mean `main`?" in told(tree, "mian")
    git(tree, "push", "--quiet", "origin", "main:topic")
    assert "did you mean `origin/topic`?" in told(tree, "topic")
    for odd in ("", "-x", "--all", "a b", "..", "HEAD:knowledge", "x\0y", "main^{tree}"):
        assert "is no branch, tag or commit" in told(tree, odd)
    git(tree, "switch", "--quiet", "--orphan", "alone")
    write(tree, NEW)
    commit(tree)
    assert "the current HEAD has no ancestor in 'main'" in told(tree, "main")


def test_a_history_that_was_cut_off(tree: Path, tmp_path: Path) -> None:
    for number in range(3):
        write(tree, f"knowledge/{number}/qna.yaml")
        commit(tree)
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{tree}", "cut")
    cut = tmp_path / "cut"
    git(cut, "fetch", "--quiet", "--depth=1", "origin", "HEAD")
    git(cut, "tag", "base", git(cut, "commit-tree", "HEAD^{tree}", "-m", "elsewhere"))
    with pytest.raises(InputError, match="has no ancestor") as caught:
        changes(cut, "base")
    assert "git fetch --unshallow" in caught.value.hint


def test_what_is_passed_over_and_why(tree: Path) -> None:
    write(tree, "knowledge/a/qna.yml")
    write(tree, "docs/qna.yaml")
    write(tree, "qna.yaml")
    write(tree, "knowledge/b/README.md")
    (tree / OLD).unlink()
    write(tree, ".gitignore", "knowledge/secret/\n")
    write(tree, "knowledge/secret/qna.yaml")
    found = changes(tree)
    assert (list(found.files), found.seen) == ([], 6)
    outside = "lies outside knowledge/, compositional_skills/, foundational_skills/"
    assert found.passed_over == {
        OLD: "was deleted",
        "docs/qna.yaml": outside,
        "knowledge/a/qna.yml": "must be named qna.yaml",
        "knowledge/secret/qna.yaml": "git is told to ignore it (.gitignore)",
        "qna.yaml": outside,
    }


def knowledge(documents: str) -> str:
    pairs = [{"question": f"Is it {n}?", "answer": f"It is {n}."} for n in range(3)]
    seeds = [{"context": f"It is {n}.", "questions_and_answers": pairs} for n in range(5)]
    leaf = {"version": 3, "created_by": "t", "domain": "d", "document_outline": "o", "seed_examples": seeds}
    return f"{yaml.safe_dump(leaf)}document:\n  {documents}\n"


def test_leaves_whose_documents_changed(tree: Path) -> None:
    one = write(tree, "knowledge/one/qna.yaml", knowledge("path: ['text.md', 'more/**/*.md']"))
    two = write(tree, "knowledge/two/qna.yaml", knowledge("path: ../../shared/*.md"))
    write(tree, "knowledge/three/qna.yaml", knowledge("{repo: 'https://example.org/x', commit: a, patterns: ['*.md']}"))
    files = ["knowledge/one/text.md", "knowledge/one/more/deep/er.md", "shared/a.md", "knowledge/three/x.md"]
    for name in [*files, "knowledge/one/other.md"]:
        write(tree, name, "# T\n")
    commit(tree)
    assert changes(tree, "HEAD").leaves == []
    write(tree, files[1], "# Other\n")
    write(tree, "knowledge/one/other.md", "# Other\n")
    write(tree, files[3], "# Other\n")
    (tree / files[0]).unlink()
    write(tree, "shared/new.md", "# N\n")
    found = changes(tree, "HEAD")
    assert found.files == ()
    assert found.beside == {one: (files[1], files[0]), two: ("shared/new.md",)}
    assert found.leaves == [one, two]
    write(tree, two, "broken: [")
    assert changes(tree, "HEAD").leaves == [one, two], "a leaf that cannot be read is listed for its own change"


def test_a_leaf_whose_held_out_questions_changed(tree: Path) -> None:
    held = write(tree, "compositional_skills/old/eval.yaml", "version: 1\n")
    write(tree, "compositional_skills/none/eval.yaml", "version: 1\n")
    assert changes(tree).beside == {OLD: (held,)}


@pytest.mark.parametrize("commits", [1, 60])
def test_the_number_of_git_commands_does_not_grow(tree: Path, commits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tree, "switch", "--quiet", "-c", "mine")
    tip = git(tree, "rev-parse", "HEAD")
    for number in range(commits):
        tip = git(tree, "commit-tree", "HEAD^{tree}", "-p", tip, "-m", str(number))
    git(tree, "reset", "--quiet", "--hard", tip)
    asked: list[tuple[str, ...]] = []
    ask = worktree._git

    def counting(folder: Path, *arguments: str) -> bytes | None:
        asked.append(arguments)
        return ask(folder, *arguments)

    monkeypatch.setattr(worktree, "_git", counting)
    assert names(tree) == []
    assert len(asked) == 8


def test_nothing_of_the_repository_is_run(tree: Path, tmp_path: Path) -> None:
    """Settings that name programs (they may come with an unpacked archive) are not obeyed."""
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/caught\n")
    trap.chmod(0o755)
    for setting in ("core.fsmonitor", "diff.external", "diff.x.textconv", "core.pager", "diff.x.command"):
        git(tree, "config", setting, str(trap))
    write(tree, ".gitattributes", "*.yaml diff=x\n")
    write(tree, OLD, SKILL + "\n")
    assert names(tree) == [OLD]
    assert not (tmp_path / "caught").exists()


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="needs ../shared")
def test_the_public_taxonomy_lists_all_its_leaves() -> None:
    found = names(PUBLIC, "empty")
    assert len(found) == 16
    assert found == sorted(found)
    assert sum(name.startswith("foundational_skills/") for name in found) == 11
