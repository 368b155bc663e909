"""Glob patterns over file lists, against the standard library's own glob."""

import glob
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilab.documents.trees import list_files, matching

NAMES = (
    "a.md",
    "b.txt",
    "docs/a.md",
    "docs/deep/c.md",
    "docs/deep/er/d.md",
    ".hidden/a.md",
    "docs/.x.md",
    "x/y/z.md",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def test_files_are_listed_sorted_without_git(folder: Path) -> None:
    (folder / ".git").mkdir(exist_ok=True)
    (folder / ".git" / "config").write_text("")
    assert list_files(folder) == tuple(sorted(NAMES))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(["**", "*", "*.md", "docs", "d*", "?.md", "[ab].*", ".*", "deep", "a.md"]),
        min_size=1,
        max_size=5,
    )
)
def test_matching_agrees_with_glob(folder: Path, parts: list[str]) -> None:
    pattern = "/".join(parts)
    found = glob.glob(pattern, root_dir=folder, recursive=True)  # noqa: PTH207 - pathlib differs on dot files
    files = {name for name in found if (folder / name).is_file() and not name.endswith("/")}
    wanted = sorted(name for name in files if not name.startswith(".git/"))
    assert matching(pattern, list_files(folder)) == wanted


def test_a_pattern_made_to_explode_does_not() -> None:
    name = "/".join(["a" * 200] * 20)
    assert matching("/".join(["**", "*a" * 60 + "b"] * 20), [name] * 50) == []
