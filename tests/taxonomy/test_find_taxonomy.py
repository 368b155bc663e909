"""Finding a taxonomy: folders, files and git addresses; what its identity covers."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from ilab.config import Where
from ilab.core.git import is_same, is_url, redacted, split_ref
from ilab.errors import InputError, ServiceError
from ilab.taxonomy.locate import find_taxonomy
from ilab.taxonomy.read import read_taxonomy

SKILL = yaml.safe_dump(
    {"created_by": "t", "task_description": "Do it.", "seed_examples": [{"question": "q", "answer": "a"}]}
)


def git(folder: Path, *arguments: str) -> str:
    names = ("-c", "user.name=t", "-c", "user.email=t@example", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *names, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path, name: str, text: str) -> str:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "change")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    git(root, "init", "--quiet")
    commit(root, "compositional_skills/a/qna.yaml", SKILL)
    return root


@pytest.fixture
def where(tmp_path: Path) -> Where:
    return Where(cache=str(tmp_path / "cache"))


def test_a_local_folder_is_read_as_it_stands(tree: Path, tmp_path: Path, where: Where) -> None:
    first = find_taxonomy("tree", tmp_path, where)
    assert first.revision == git(tree, "rev-parse", "HEAD")
    assert first.details == {"path": str(tree), "root": str(tree)}
    later = commit(tree, "README.md", "about")
    second = find_taxonomy(str(tree), Path("/"), where)
    assert (second.digest, second.revision) == (first.digest, later)
    (tree / "compositional_skills/a/qna.yaml").write_text(SKILL.replace("answer: a", "answer: b"))
    changed = find_taxonomy("tree", tmp_path, where)
    assert changed.digest != first.digest
    for name in ("eval.yaml", "attribution.txt"):
        (tree / "compositional_skills/a" / name).write_text("x")
        following = find_taxonomy("tree", tmp_path, where)
        assert following.digest != changed.digest
        changed = following
    shutil.move(tree / "compositional_skills/a", tree / "compositional_skills/b")
    assert find_taxonomy("tree", tmp_path, where).digest != changed.digest


def test_a_folder_outside_git_has_no_revision(tree: Path, tmp_path: Path, where: Where) -> None:
    copy = shutil.copytree(tree, tmp_path / "copy", ignore=shutil.ignore_patterns(".git"))
    found = find_taxonomy(str(copy), tmp_path, where)
    assert (found.digest, found.revision) == (find_taxonomy("tree", tmp_path, where).digest, "")


def test_a_single_file(tree: Path, tmp_path: Path, where: Where) -> None:
    found = find_taxonomy("tree/compositional_skills/a/qna.yaml", tmp_path, where)
    assert found.details is not None
    assert found.details["root"] == str(tree)
    assert [leaf.path for leaf in read_taxonomy(Path(found.details["path"])).leaves] == ["compositional_skills/a"]


def test_a_git_address_with_branch_tag_and_commit(tree: Path, tmp_path: Path, where: Where) -> None:
    first = git(tree, "rev-parse", "HEAD")
    git(tree, "tag", "-a", "v1", "-m", "one")
    git(tree, "checkout", "--quiet", "-b", "feature/x")
    second = commit(tree, "compositional_skills/b/qna.yaml", SKILL)
    git(tree, "checkout", "--quiet", "main")
    leaves = {}
    for suffix, revision in {
        "": first,
        "@v1": first,
        "#feature/x": second,
        f"@{second}": second,
        f"#{first[:9]}": first,
    }.items():
        found = find_taxonomy(f"file://{tree}{suffix}", tmp_path, where)
        assert found.revision == revision
        assert found.details is not None and found.details["path"].startswith(str(tmp_path / "cache"))
        leaves[suffix] = len(read_taxonomy(Path(found.details["path"])).leaves)
    assert list(leaves.values()) == [1, 1, 2, 2, 1]
    assert not list((tmp_path / "cache").rglob(".fetch-*"))
    shutil.rmtree(tree)
    assert find_taxonomy(f"file://{tree}@{second}", tmp_path, where).revision == second  # from the cache


def test_what_leads_nowhere_is_told_with_gits_reason(tree: Path, tmp_path: Path, where: Where) -> None:
    with pytest.raises(InputError, match="there is no taxonomy at"):
        find_taxonomy("nowhere", tmp_path, where)
    with pytest.raises(InputError, match=r"has no branch, tag or commit 'nope' \(fatal: .*nope"):
        find_taxonomy(f"file://{tree}@nope", tmp_path, where)
    with pytest.raises(InputError, match=r"cannot fetch file:///.*gone: fatal: .*does not"):
        find_taxonomy(f"file://{tmp_path}/gone", tmp_path, where)
    for ref in ("--upload-pack=x", "+main", "a..b", "main:other"):
        with pytest.raises(InputError, match="is no name of a branch, tag or commit"):
            find_taxonomy(f"file://{tree}#{ref}", tmp_path, where)


def test_a_server_out_of_reach_may_be_tried_again(tmp_path: Path, where: Where) -> None:
    with pytest.raises(ServiceError) as error:
        find_taxonomy("http://user:secret@127.0.0.1:9/team/taxonomy.git", tmp_path, where)
    assert error.value.retryable
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("locator", "parts"),
    [
        ("https://h/o/r.git", ("https://h/o/r.git", "HEAD")),
        ("https://u@h/o/r.git", ("https://u@h/o/r.git", "HEAD")),
        ("https://u@h/o/r.git@v1", ("https://u@h/o/r.git", "v1")),
        ("git@h:o/r.git", ("git@h:o/r.git", "HEAD")),
        ("git@h:o/r.git@feature/x", ("git@h:o/r.git", "feature/x")),
        ("ssh://git@h:22/o/r#a@b", ("ssh://git@h:22/o/r", "a@b")),
    ],
)
def test_refs_in_addresses(locator: str, parts: tuple[str, str]) -> None:
    assert is_url(locator)
    assert split_ref(locator) == parts


def test_paths_are_no_addresses() -> None:
    for path in ("taxonomy", "./a@b", "/a/b", "ext::sh -c x", "-c"):
        assert not is_url(path)
    assert redacted("https://u:p@h/r failed") == "https://h/r failed"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://example.org/a/b.git", "git@example.org:a/b", True),
        ("https://ann:pw@Example.org/a/b/", "ssh://git@example.org:22/a/b.git", True),
        ("file:///srv/a.git", "/srv/a", True),
        ("https://example.org/a/b", "https://example.org/a/c", False),
        ("https://example.org/a/b", "https://other.org/a/b", False),
        ("/srv/a", "/srv/b", False),
    ],
)
def test_one_repository_has_several_addresses(one: str, other: str, same: bool) -> None:
    assert is_same(one, other) is same is is_same(other, one)
