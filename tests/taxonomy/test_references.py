"""The forms a `document` may have, what each becomes, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ilab.data import DocumentRef, Leaf
from ilab.errors import InputErrors
from ilab.taxonomy.layout import find_layout
from ilab.taxonomy.read import read_leaves, read_taxonomy

PAIRS = [{"question": f"q{n}", "answer": f"a{n}"} for n in range(3)]
REPO = {"repo": "https://example.org/r.git", "commit": "main", "patterns": ["a/*.md"]}


def leaf(root: Path, document: Any) -> Leaf:
    """The leaf with that ``document``, which stands at the end of the file, from line 7 (`document:`) on."""
    folder = root / "knowledge/a"
    folder.mkdir(parents=True, exist_ok=True)
    seeds = [{"context": f"c{n}", "questions_and_answers": PAIRS} for n in range(5)]
    head = {"version": 3, "created_by": "t", "domain": "d", "document_outline": "o"}
    text = (
        yaml.safe_dump(head, sort_keys=False)
        + f"seed_examples: {yaml.safe_dump(seeds, default_flow_style=True, width=10**6)}"
    )
    (folder / "qna.yaml").write_text(text + "# documents\n" + yaml.safe_dump({"document": document}, sort_keys=False))
    (found,) = read_taxonomy(root).leaves
    return found


def told(root: Path, document: Any) -> list[str]:
    with pytest.raises(InputErrors) as error:
        leaf(root, document)
    return [str(problem) for problem in error.value.errors]


def bare(refs: tuple[DocumentRef, ...]) -> list[dict[str, Any]]:
    return [ref.model_dump(exclude={"place"}, exclude_defaults=True) for ref in refs]


@pytest.mark.parametrize(
    ("document", "refs"),
    [
        (REPO, [{"repo": "https://example.org/r.git", "commit": "main", "patterns": ("a/*.md",)}]),
        ({"path": "a.md"}, [{"patterns": ("a.md",)}]),
        ({"path": ["a.md", "folder", "../b/*.pdf"]}, [{"patterns": ("a.md", "folder", "../b/*.pdf")}]),
        ({"url": "https://example.org/a?b=c#d"}, [{"urls": ("https://example.org/a?b=c#d",)}]),
        ({"url": ["http://localhost:8000/a", "https://例え.jp/x"]}, [{"urls": ("http://localhost:8000/a", "https://例え.jp/x")}]),
        ({"text": "# Kilns\n\nHot.\n"}, [{"text": "# Kilns\n\nHot."}]),
        (
            [{"text": "x"}, {"path": "a.md"}, REPO, {"url": "https://example.org"}],
            [
                {"text": "x"},
                {"patterns": ("a.md",)},
                {"repo": "https://example.org/r.git", "commit": "main", "patterns": ("a/*.md",)},
                {"urls": ("https://example.org",)},
            ],
        ),
    ],
)  # fmt: skip
def test_every_form(tmp_path: Path, document: Any, refs: list[dict[str, Any]]) -> None:
    found = leaf(tmp_path, document)
    assert found.kind == "knowledge"
    assert bare(found.documents) == refs
    assert {ref.place.file for ref in found.documents} == {"knowledge/a/qna.yaml"}


def test_places_are_those_of_the_mappings(tmp_path: Path) -> None:
    one = leaf(tmp_path, {"path": "a.md"})
    assert [str(ref.place) for ref in one.documents] == ["knowledge/a/qna.yaml:8:3"]
    several = leaf(tmp_path, [{"path": "a.md"}, {"text": "x"}])
    assert [str(ref.place) for ref in several.documents] == [f"knowledge/a/qna.yaml:{line}:3" for line in (8, 9)]


@pytest.mark.parametrize(
    ("document", "at", "words"),
    [
        ({"url": "ftp://example.org/a"}, "8:8", "does not begin with https:// or http://"),
        ({"url": "example.org/a"}, "8:8", "does not begin with https://"),
        ({"url": "file:///etc/passwd"}, "8:8", "does not begin with https://"),
        ({"url": "https:///a"}, "8:8", "has no host"),
        ({"url": "https://exa mple.org"}, "8:8", "holds a blank"),
        ({"url": "https://[::1"}, "8:8", "cannot be read"),
        ({"url": "https://example.org:99999/"}, "8:8", "cannot be read"),
        ({"url": ["https://example.org", "https://me:secret@example.org/a"]}, "10:5", "user name or password"),
        ({"url": "https://secret@example.org/a"}, "8:8", "user name or password"),
        ({"url": []}, "8:8", "needs at least 1"),
        ({"url": ["https://e.org", "https://e.org"]}, "10:5", "is the same as the entry at line 9"),
        ({"path": ["a.md", "/etc/passwd"]}, "10:5", "is not a relative path"),
        ([{"path": "a.md"}, {"path": "../../.."}], "9:9", "leaves the taxonomy"),
        ([{"path": "a.md"}, {"repo": "r"}], "9:3", "`document[1]` has no `commit`"),
        ([{"path": "a.md"}, "b.md"], "9:3", "`document[1]` must be a mapping"),
        ([], "7:11", "needs at least 1"),
        ({"repo": "https://u:secret@h/r", "commit": "m", "patterns": ["x.md"]}, "8:9", "holds a password"),
    ],
)
def test_what_is_refused(tmp_path: Path, document: Any, at: str, words: str) -> None:
    found = told(tmp_path, document)
    assert any(line.startswith(f"knowledge/a/qna.yaml:{at}: ") and words in line for line in found), found
    assert "secret" not in "\n".join(found)


def test_all_addresses_are_told_at_once(tmp_path: Path) -> None:
    found = told(tmp_path, [{"url": ["ftp://a", "http://"]}, {"path": "/x"}])
    assert [line.split(": ")[0] for line in found] == [f"knowledge/a/qna.yaml:{at}" for at in ("9:5", "10:5", "11:9")]


def test_the_digest_tells_the_forms_apart_and_is_the_old_one_for_the_old_forms(tmp_path: Path) -> None:
    one, listed = leaf(tmp_path, REPO), leaf(tmp_path, [REPO])
    assert one.digest == listed.digest
    assert one.digest == "0b344cd1daaacb8ac696b7bf4faa850600adfcbe692364e78e2ca6d7e783b1bd"
    assert leaf(tmp_path, {"path": "a.md"}).digest == "8c18c6c3258e88a27844cca1062c47d04237d0bc29587438f8f89b59a03bfa01"
    forms = [REPO, {"path": "x"}, {"url": "https://x"}, {"text": "x"}, {"text": "y"}, [{"path": "x"}, {"text": "x"}]]
    assert len({leaf(tmp_path, form).digest for form in forms}) == len(forms)


def test_a_leaf_with_a_document_is_knowledge_wherever_it_lies(tmp_path: Path) -> None:
    leaf(tmp_path, {"text": "x"})
    (tmp_path / "compositional_skills").mkdir()
    (tmp_path / "knowledge/a").rename(tmp_path / "compositional_skills/a")
    leaves, problems = read_leaves(find_layout(tmp_path))
    assert problems == []
    assert [one.kind for one in leaves] == ["knowledge"]
