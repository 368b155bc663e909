"""Pinning and reading documents: beside the leaf, from git, from mirrors; and the ways that goes wrong."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ilab.config import DocumentsWhere, Where
from ilab.data import DocumentRef, Leaf, Place, QuestionAnswer, SeedExample
from ilab.documents.chunk import chunk_documents
from ilab.documents.collect import collect
from ilab.documents.locate import find_documents, pinned_files
from ilab.errors import InputError, InputErrors
from ilab.taxonomy.read import read_taxonomy

KONFLUX = Path(__file__).parents[3] / "shared" / "data" / "konflux-taxonomy"
URL = "https://git.example/team/docs.git"


def git(folder: Path, *arguments: str) -> str:
    names = ("-c", "user.name=t", "-c", "user.email=t@example", "-c", "init.defaultBranch=main")
    return subprocess.run(
        ["git", *names, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def repository(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "--quiet")
    commit(folder, files)
    return folder


def commit(folder: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "change")
    return git(folder, "rev-parse", "HEAD")


def leaf(*refs: DocumentRef, path: str = "knowledge/a") -> Leaf:
    place = Place(file=f"{path}/qna.yaml", line=1)
    seed = SeedExample(pairs=(QuestionAnswer(question="q", answer="a", place=place),), place=place)
    return Leaf(
        path=path,
        kind="knowledge",
        version=3,
        created_by="t",
        seeds=(seed,),
        documents=refs,
        digest="d",
        place=place,
    )


def ref(*patterns: str, repo: str | None = None, commit: str | None = None) -> DocumentRef:
    return DocumentRef(repo=repo, commit=commit, patterns=patterns, place=Place(file="knowledge/a/qna.yaml", line=7))


def where(tmp_path: Path, mirror: str = "") -> Where:
    return Where(cache=str(tmp_path / "cache"), documents=DocumentsWhere(mirrors={URL: mirror} if mirror else {}))


def problems(error: pytest.ExceptionInfo[InputErrors]) -> list[InputError]:
    return error.value.errors


def test_files_beside_the_leaf(tmp_path: Path) -> None:
    root = tmp_path / "taxonomy"
    (root / "knowledge/a/docs").mkdir(parents=True)
    (root / "knowledge/a/one.md").write_text("# One\n\nText.\n")
    (root / "knowledge/a/docs/two.txt").write_text("Two.\n")
    (root / "knowledge/shared.md").write_text("Shared.\n")
    leaves = [leaf(ref("one.md", "docs/*", "../shared.md", "*.md"))]
    found = find_documents(leaves, root, where(tmp_path))
    documents = collect(leaves, found)
    assert [document.source for document in documents] == [
        "knowledge/a/docs/two.txt",
        "knowledge/a/one.md",
        "knowledge/shared.md",
    ]
    assert [document.title for document in documents] == ["two", "One", "shared"]
    assert str(tmp_path) not in json.dumps([document.model_dump() for document in documents])
    moved = shutil.copytree(root, tmp_path / "elsewhere")
    assert find_documents(leaves, moved, where(tmp_path)).digest == found.digest
    (moved / "knowledge/a/one.md").write_text("# One\n\nOther text.\n")
    assert find_documents(leaves, moved, where(tmp_path)).digest != found.digest


def test_a_commit_a_branch_and_a_short_commit(tmp_path: Path) -> None:
    remote = repository(tmp_path / "remote", {"docs/a.md": "First.\n"})
    first = git(remote, "rev-parse", "HEAD")
    second = commit(remote, {"docs/a.md": "Second.\n"})
    texts = {}
    for name in (first, first[:10], "main", second):
        leaves = [leaf(ref("docs/*.md", repo=URL, commit=name))]
        found = find_documents(leaves, tmp_path, where(tmp_path, str(remote)))
        assert found.revision == f"{URL}@{first if name.startswith(first[:10]) else second}"
        (document,) = collect(leaves, found)
        assert document.source == f"{URL}@{name}:docs/a.md"
        texts[name] = document.text
    assert texts == {first: "First.\n", first[:10]: "First.\n", "main": "Second.\n", second: "Second.\n"}
    shutil.rmtree(remote)
    remote.mkdir()
    (remote / ".git").mkdir()
    leaves = [leaf(ref("docs/*.md", repo=URL, commit=first))]
    assert collect(leaves, find_documents(leaves, tmp_path, where(tmp_path, str(remote))))  # from the cache, offline


def test_a_commit_that_touches_another_file_keeps_the_digest(tmp_path: Path) -> None:
    remote = repository(tmp_path / "remote", {"a.md": "First.\n"})
    leaves = [leaf(ref("a.md", repo=URL, commit="main"))]
    before = find_documents(leaves, tmp_path, where(tmp_path, str(remote)))
    commit(remote, {"README.txt": "changed\n"})
    after = find_documents(leaves, tmp_path, where(tmp_path, str(remote)))
    assert after.digest == before.digest
    assert after.revision != before.revision
    assert collect(leaves, after) == collect(leaves, before)


def test_a_plain_folder_as_mirror_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/a.md").write_text("Plain.\n")
    leaves = [leaf(ref("*.md", repo=URL.removesuffix(".git"), commit="abc"))]
    settings = where(tmp_path, "copy")
    (document,) = collect(leaves, find_documents(leaves, tmp_path, settings, base=tmp_path))
    assert document.source == "https://git.example/team/docs@abc:a.md"


def test_all_problems_are_told_at_once_with_what_is_there(tmp_path: Path) -> None:
    root = tmp_path / "taxonomy"
    (root / "knowledge/a").mkdir(parents=True)
    (root / "knowledge/a/kiln_manual.md").write_text("Text.\n")
    (root / "knowledge/a/photo.png").write_bytes(b"\x89PNG")
    (root / "knowledge/a/large.txt").write_bytes(b"a" * (20 * 2**20 + 1))
    (root / "knowledge/a/lfs.md").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n")
    os.mkfifo(root / "knowledge/a/pipe.md")
    (tmp_path / "outside.md").write_text("secret")
    (root / "knowledge/a/link.md").symlink_to(tmp_path / "outside.md")
    (root / "knowledge/a/x\x1b[31m.md").write_text("x")
    patterns = (
        "kiln_manul.md",
        "*.png",
        "large.txt",
        "link.md",
        "none/*.md",
        "lfs.md",
        "pipe.md",
        "x*.md",
        "../../../o.md",
    )
    leaves = [leaf(ref(*patterns))]
    with pytest.raises(InputErrors) as error:
        find_documents(leaves, root, where(tmp_path))
    told = [str(problem) for problem in problems(error)]
    assert all(line.startswith("knowledge/a/qna.yaml:7:1: ") for line in told)
    assert "`kiln_manul.md` matches no file in the taxonomy" in told[0]
    assert "did you mean knowledge/a/kiln_manual.md" in told[0]
    assert "knowledge/a/photo.png: cannot be read as a document" in told[1] and ".md, .markdown, .txt" in told[1]
    assert "knowledge/a/large.txt: has 20.0 MiB; at most 20 MiB are read" in told[2]
    assert "knowledge/a/link.md: is a link that leaves" in told[3]
    assert "none/*.md" in told[4]
    assert "knowledge/a/lfs.md: is a Git LFS pointer" in told[5]
    assert "knowledge/a/pipe.md: is not a regular file" in told[6]
    assert "\\x1b" in told[7] and "\x1b" not in told[7]
    assert "`../../../o.md` lies outside of the taxonomy" in told[8]


def test_a_local_path_cannot_leave_the_taxonomy(tmp_path: Path) -> None:
    (tmp_path / "outside.md").write_text("secret")
    root = tmp_path / "taxonomy"
    (root / "knowledge/a").mkdir(parents=True)
    (root / "knowledge/a/up").symlink_to(tmp_path)
    for pattern in ("../../../outside.md", "up/outside.md", "../../../*.md"):
        with pytest.raises(InputErrors):
            find_documents([leaf(ref(pattern))], root, where(tmp_path))


def test_a_link_in_a_repository_cannot_leave_it(tmp_path: Path) -> None:
    (tmp_path / "outside.md").write_text("secret")
    remote = repository(tmp_path / "remote", {"a.md": "x"})
    (remote / "b.md").symlink_to(tmp_path / "outside.md")
    commit(remote, {})
    with pytest.raises(InputErrors) as error:
        find_documents([leaf(ref("b.md", repo=URL, commit="main"))], tmp_path, where(tmp_path, str(remote)))
    assert "link that leaves" in str(error.value)


@pytest.mark.parametrize("name", ["nothing", "0" * 40, "-upload-pack=touch x", "a:b", "+main"])
def test_an_unknown_commit_is_named_with_its_place(tmp_path: Path, name: str) -> None:
    remote = repository(tmp_path / "remote", {"a.md": "x"})
    with pytest.raises(InputErrors) as error:
        find_documents([leaf(ref("a.md", repo=URL, commit=name))], tmp_path, where(tmp_path, str(remote)))
    assert str(problems(error)[0]).startswith("knowledge/a/qna.yaml:7:1: ")
    assert name in str(error.value)


def test_a_missing_repository_says_how_to_map_it(tmp_path: Path) -> None:
    with pytest.raises(InputErrors) as error:
        find_documents([leaf(ref("a.md", repo=str(tmp_path / "gone"), commit="main"))], tmp_path, where(tmp_path))
    assert "does not" in str(error.value) and "mirrors" in str(error.value)
    with pytest.raises(InputErrors, match="no address"):
        find_documents([leaf(ref("a.md", repo="ext::sh -c true", commit="main"))], tmp_path, where(tmp_path))


def test_documents_that_changed_or_hold_nothing(tmp_path: Path) -> None:
    root = tmp_path / "taxonomy"
    (root / "knowledge/a").mkdir(parents=True)
    (root / "knowledge/a/a.md").write_text("Text.\n")
    (root / "knowledge/a/b.md").write_text("<!-- nothing -->\n")
    leaves = [leaf(ref("*.md"))]
    found = find_documents(leaves, root, where(tmp_path))
    (root / "knowledge/a/a.md").write_text("Changed.\n")
    with pytest.raises(InputErrors) as error:
        collect(leaves, found)
    assert [problem.message for problem in problems(error)] == [
        "knowledge/a/a.md: changed while the run was under way",
        "knowledge/a/b.md: holds no text",
    ]
    assert {problem.where for problem in problems(error)} == {"knowledge/a/qna.yaml:7:1"}


def test_skills_have_no_documents(tmp_path: Path) -> None:
    found = find_documents([leaf()], tmp_path, where(tmp_path))
    assert pinned_files(found) == [] and collect([leaf()], found) == []


@pytest.mark.skipif(not KONFLUX.is_dir(), reason="the shared data are not here")
def test_the_konflux_taxonomy_from_a_repository(tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    shutil.copytree(KONFLUX / "markdown", remote / "markdown")
    repository(remote, {})
    reading = read_taxonomy(KONFLUX / "qna.yaml")
    address = reading.leaves[0].documents[0].repo or ""
    settings = Where(cache=str(tmp_path / "cache"), documents=DocumentsWhere(mirrors={address: str(remote)}))
    found = find_documents(reading.leaves, reading.root, settings)
    documents = collect(reading.leaves, found)
    assert len(documents) == len(list((KONFLUX / "markdown").glob("*.md"))) == 38
    parts = chunk_documents(documents, 500)
    assert len({part.id for part in parts}) == len(parts) > 100
    texts = {document.id: document.text for document in documents}
    assert all(texts[part.document][slice(*part.span)] == part.text and part.tokens <= 500 for part in parts)


@pytest.mark.skipif(not KONFLUX.is_dir(), reason="the shared data are not here")
def test_one_missing_document_of_konflux_is_one_clear_error(tmp_path: Path) -> None:
    reading = read_taxonomy(KONFLUX)
    address = reading.leaves[0].documents[0].repo or ""
    repository(tmp_path / "remote", {"README.md": "empty"})
    settings = Where(cache=str(tmp_path / "c"), documents=DocumentsWhere(mirrors={address: str(tmp_path / "remote")}))
    with pytest.raises(InputErrors) as error:
        find_documents(reading.leaves, reading.root, settings)
    assert "qna.yaml:" in str(error.value) and "markdown/*.md" in str(error.value) and "README.md" in str(error.value)
