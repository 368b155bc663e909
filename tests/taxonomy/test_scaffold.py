"""New taxonomies and new leaves: whole, never over anything, and every unfilled place is told."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from ilab.config import load
from ilab.errors import InputError
from ilab.taxonomy.layout import ROOTS, find_layout
from ilab.taxonomy.new_leaf import leaf_path, make_leaf, unmake_leaf
from ilab.taxonomy.read import read_leaves
from ilab.taxonomy.scaffold import LICENCES, TEMPLATE, author_of, make_repository
from ilab.taxonomy.yamlnodes import MappingNode, compose, text

APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"  # apache.org/licenses/LICENSE-2.0.txt
EMPTY = re.compile(r"^(?P<before>\s*(?:- )?)(?P<key>\w+):(?: \[\])?$")
AUTHORS = [
    "Ada",
    "null",
    "yes",
    "1",
    "a: b",
    "x # y",
    "- x",
    '"',
    "it's",
    "Jürg Bär",
    "@ada",
    "{a}",
    "  b",
    "$document",
    "\\",
]


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A git configuration of the test's own, with a name and an address."""
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "EMAIL"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "gitconfig"
    config.write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    return config


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "taxonomy", git=False).root


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=True).stdout


# -- init ----------------------------------------------------------------------------------------------------------


def test_a_new_repository_is_whole_and_committed(tmp_path: Path, identity: Path) -> None:
    made = make_repository(tmp_path / "a" / "taxonomy")
    assert all((made.root / name / "README.md").is_file() for name in ROOTS)
    for name in ("README.md", "CONTRIBUTING.md", ".gitignore", ".github/pull_request_template.md", "ilab.yaml"):
        assert (made.root / name).read_bytes() == (TEMPLATE / name).read_bytes()
    assert (made.root / ".gitlab/merge_request_templates/Default.md").is_file()
    assert made.git == "committed on branch main"
    assert git(made.root, "status", "--porcelain", "--branch").strip() == "## main"
    assert sorted(git(made.root, "ls-files").split()) == sorted(made.written)
    assert "Signed-off-by: Ada <ada@example.org>" in git(made.root, "log", "-1", "--format=%B")


def test_every_file_of_the_template_is_copied(root: Path) -> None:
    wanted = {path.relative_to(TEMPLATE) for path in TEMPLATE.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    wanted.add(Path("LICENSE"))
    assert {path.relative_to(root) for path in root.rglob("*") if path.is_file()} == wanted


def test_its_settings_build_this_taxonomy(root: Path) -> None:
    loaded = load(root / "knowledge")
    assert loaded.path(loaded.config.parameters["sdg_repo_url"]).resolve() == root
    assert loaded.config.pipeline == "quickstart"


def test_licences(tmp_path: Path) -> None:
    texts = {}
    for name in LICENCES:
        texts[name] = (make_repository(tmp_path / name, licence=name, git=False).root / "LICENSE").read_bytes()
    assert hashlib.sha256(texts["apache-2.0"]).hexdigest() == APACHE_2
    assert b"https://creativecommons.org/licenses/by/4.0/" in texts["cc-by-4.0"]
    assert b"https://creativecommons.org/licenses/by-sa/4.0/" in texts["cc-by-sa-4.0"]
    assert not (make_repository(tmp_path / "n", licence="none", git=False).root / "LICENSE").exists()
    with pytest.raises(InputError, match="no licence 'mit'") as caught:
        make_repository(tmp_path / "m", licence="mit")
    assert "cc-by-sa-4.0" in caught.value.hint
    assert not (tmp_path / "m").exists()


def test_without_an_identity_the_files_stand_uncommitted(tmp_path: Path, identity: Path) -> None:
    identity.write_text("[user]\n\tuseConfigOnly = true\n")
    made = make_repository(tmp_path / "taxonomy")
    assert "git does not know you" in made.git
    assert (made.root / "README.md").is_file()
    identity.write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")
    git(made.root, "commit", "--quiet", "--message", "begun")  # everything was staged already
    assert git(made.root, "status", "--porcelain") == ""


def test_without_git_the_files_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    made = make_repository(tmp_path / "taxonomy")
    assert "git is not installed" in made.git
    assert (made.root / "README.md").is_file()
    assert author_of(made.root) == ""


def test_no_repository_inside_a_repository(tmp_path: Path, identity: Path) -> None:
    git(tmp_path, "init", "--quiet")
    made = make_repository(tmp_path / "taxonomy")
    assert "lies in a git work tree already" in made.git
    assert not (made.root / ".git").exists()


def test_a_fresh_clone_is_empty(tmp_path: Path, identity: Path) -> None:
    git(tmp_path, "init", "--quiet", "clone")
    made = make_repository(tmp_path / "clone")
    assert made.written
    assert made.kept == ()


def test_a_folder_with_files_is_refused_and_force_only_adds(root: Path) -> None:
    (root / "README.md").write_text("mine\n")
    (root / "CONTRIBUTING.md").unlink()
    with pytest.raises(InputError, match=r"not empty: it holds \.gitattributes, \.github") as caught:
        make_repository(root, git=False)
    assert "--force" in caught.value.hint
    made = make_repository(root, git=False, force=True)
    assert made.written == ("CONTRIBUTING.md",)
    assert "README.md" in made.kept
    assert (root / "README.md").read_text() == "mine\n"


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "taxonomy").write_text("")
    with pytest.raises(InputError, match="is a file, not a folder"):
        make_repository(tmp_path / "taxonomy", git=False)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "knowledge").write_text("")
    with pytest.raises(InputError, match="a file stands where a folder is needed"):
        make_repository(tmp_path / "other", git=False, force=True)


# -- new -----------------------------------------------------------------------------------------------------------


def faults(root: Path) -> dict[tuple[int, str], str]:
    """(line, key) -> message of every error in the only leaf."""
    found = {}
    for error in read_leaves(find_layout(root))[1]:
        line = int(error.where.split(":")[1])
        key = re.search(r"`(?:[\w\[\].]*\.)?(\w+)(?:\[\d+\])?`", error.message)
        assert key is not None, error.message
        found[line, key[1]] = error.message
    return found


@pytest.mark.parametrize("kind", ["knowledge", "grounded", "freeform"])
def test_every_place_to_fill_in_is_told_and_a_filled_form_is_right(root: Path, kind: str) -> None:
    made = make_leaf(root, "ferry", kind=kind)  # type: ignore[arg-type]
    form = root / made.path / "qna.yaml"
    lines = form.read_text().splitlines()
    holes = [(at, match) for at, line in enumerate(lines, 1) if (match := EMPTY.match(line))]
    holes = [(at, match) for at, match in holes if not deeper(lines, at)]
    assert {match["key"] for _, match in holes} >= {"created_by", "question", "answer"}
    told = faults(root)
    for at, match in holes:
        assert "empty" in told[at, match["key"]] or "must be text" in told[at, match["key"]]
    assert any("at least 5" in message for message in told.values())

    (root / made.path / "ferry.md").write_text("# Ferry\n")
    for at, match in holes:
        value = "ferry.md" if match["key"] == "path" else f"text of line {at}"
        lines[at - 1] = f"{match['before']}{match['key']}: {value}"
    seed = next(at for at, line in enumerate(lines) if line == "seed_examples:") + 1
    block = lines[seed:]
    if kind == "knowledge":
        pair = block[-2:]
        block += [line + f" {number}" for number in range(2) for line in pair]
    seeds = [f"{line} of {number}" if re.search(r": .", line) else line for number in range(5) for line in block]
    form.write_text("\n".join([*lines[:seed], *seeds]) + "\n")
    leaves, problems = read_leaves(find_layout(root))
    assert problems == []
    assert (leaves[0].kind, len(leaves[0].seeds), leaves[0].version) == (kind, 5, 3)


def deeper(lines: list[str], at: int) -> bool:
    """Whether the line after line ``at`` stands below it."""
    depth = [len(line) - len(line.lstrip(" -")) for line in (lines[at - 1], *lines[at : at + 1])]
    return len(depth) > 1 and depth[1] > depth[0]


def test_the_form_for_held_out_questions_is_told_too(root: Path) -> None:
    made = make_leaf(root, "knowledge/ferry", held_out=True)
    path = f"{made.path}/eval.yaml"
    assert path in made.files
    leaves, _ = read_leaves(find_layout(root))
    assert leaves == ()
    tree = yaml.safe_load((root / path).read_text())
    assert [item["split"] for item in tree["items"]] == ["dev", "test"]


@pytest.mark.parametrize("author", AUTHORS)
def test_an_author_is_read_back_as_given(root: Path, author: str) -> None:
    made = make_leaf(root, "knowledge/ferry", author=author)
    tree = compose((root / made.path / "qna.yaml").read_text(), "qna.yaml", [])
    assert isinstance(tree, MappingNode)
    assert text(tree.get("created_by")) == author
    assert yaml.safe_load((root / made.path / "qna.yaml").read_text())["created_by"] == author


@pytest.mark.parametrize(
    ("given", "kind", "path", "found"),
    [
        ("knowledge/science/my_topic", None, "knowledge/science/my_topic", "knowledge"),
        ("./knowledge/science//my_topic/", None, "knowledge/science/my_topic", "knowledge"),
        ("knowledge/a/qna.yaml", None, "knowledge/a", "knowledge"),
        ("ferry", "knowledge", "knowledge/ferry", "knowledge"),
        ("transport/ferry", "grounded", "compositional_skills/grounded/transport/ferry", "grounded"),
        ("ferry", "freeform", "compositional_skills/ferry", "freeform"),
        ("compositional_skills/grounded/notes", None, "compositional_skills/grounded/notes", "grounded"),
        ("compositional_skills/grounded", None, "compositional_skills/grounded", "freeform"),
        ("foundational_skills/count/bells", None, "foundational_skills/count/bells", "freeform"),
        ("foundational_skills/count/bells", "grounded", "foundational_skills/count/bells", "grounded"),
        ("knowledge/größe", None, "knowledge/größe", "knowledge"),
        ("knowledge/東京", None, "knowledge/東京", "knowledge"),
    ],
)
def test_good_paths(given: str, kind: str | None, path: str, found: str) -> None:
    assert leaf_path(given, kind) == (path, found)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "kind", "message", "hint"),
    [
        ("knowledge/My Topic", None, "no good name", "knowledge/my_topic"),
        ("knowledge/a b/c", None, "no good name", "knowledge/a_b/c"),
        ("knowledge/.hidden", None, "no good name", "knowledge/hidden"),
        ("knowledge/a#b", None, "no good name", "knowledge/a_b"),
        ("knowledge/-x", None, "no good name", "knowledge/x"),
        ("knowledge/con", None, "no good name", "knowledge/con_"),
        ("knowledge/a/knowledge", None, "no good name", "knowledge/a/the_knowledge"),
        (f"knowledge/{'a' * 80}", None, "no good name", f"knowledge/{'a' * 60}?"),
        ("knowledge\\science\\Topic", None, "no good name", "knowledge/science/topic"),
        ("knowlege/science", None, "no root", "knowledge/science"),
        ("Knowledge/science", None, "no root", "knowledge/science"),
        ("composition_skills/x", "freeform", "no root", "compositional_skills/x"),
        ("taxonomy/knowledge/x", None, "does not begin at the root", "knowledge/x"),
        ("/srv/knowledge/x", None, "absolute", "from the root on"),
        ("C:\\knowledge", None, "absolute", "from the root on"),
        ("~/x", None, "absolute", "from the root on"),
        ("knowledge/../../x", None, "holds `..`", "from the root on"),
        ("ferry", None, "does not say what it teaches", "compositional_skills/grounded/ferry"),
        ("knowledge", None, "names no leaf", "letters, digits"),
        ("knowledge/!!!", None, "names no leaf", "letters, digits"),
        ("", "knowledge", "names no leaf", "letters, digits"),
        ("knowledge/x", "freeform", "cannot lie below knowledge", "compositional_skills/x"),
        ("foundational_skills/x", "knowledge", "cannot lie below foundational_skills", "knowledge/x"),
    ],
)
def test_bad_paths_come_with_a_better_one(given: str, kind: str | None, message: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        leaf_path(given, kind)  # type: ignore[arg-type]
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_the_path_that_is_proposed_is_a_good_one() -> None:
    for given in ("knowledge/My Topic", "knowledge/Con", "knowledge/..a/--b", "knowledge/__x__/Y?"):
        with pytest.raises(InputError) as caught:
            leaf_path(given, None)
        proposed = caught.value.hint.removeprefix("did you mean ").partition("?")[0]
        assert leaf_path(proposed, None) == (proposed, "knowledge")


def test_an_existing_leaf_a_link_and_a_file_are_refused(root: Path, tmp_path: Path) -> None:
    make_leaf(root, "knowledge/ferry")
    before = (root / "knowledge/ferry/qna.yaml").read_bytes()
    with pytest.raises(InputError, match="exists already"):
        make_leaf(root, "knowledge/ferry", author="somebody")
    assert (root / "knowledge/ferry/qna.yaml").read_bytes() == before
    (tmp_path / "elsewhere").mkdir()
    (root / "knowledge" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link"):
        make_leaf(root, "knowledge/link/x")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (root / "knowledge" / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        make_leaf(root, "knowledge/file/x")


def test_no_taxonomy_no_leaf(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no taxonomy here") as caught:
        make_leaf(tmp_path, "knowledge/x")
    assert "ilab taxonomy init" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


# -- documents -----------------------------------------------------------------------------------------------------


def reference(root: Path, *documents: str, base: Path | None = None) -> object:
    made = make_leaf(root, "knowledge/sea/ferry", documents=documents, base=base)
    found = yaml.safe_load((root / made.path / "qna.yaml").read_text())["document"]
    shutil.rmtree(root / made.path)
    return found


def test_documents_from_everywhere(root: Path, tmp_path: Path) -> None:
    inside = root / "knowledge" / "sea" / "all.md"
    inside.parent.mkdir()
    inside.write_text("# All\n")
    outside = tmp_path / "ferry.md"
    outside.write_text("# Ferry\n")
    page = "https://example.org/a?b=c#d"
    assert reference(root, str(inside)) == {"path": "../all.md"}
    assert reference(root, str(outside)) == {"path": "ferry.md"}
    assert reference(root, "ferry.md", base=tmp_path) == {"path": "ferry.md"}
    assert reference(root, str(outside), str(inside)) == {"path": ["ferry.md", "../all.md"]}
    assert reference(root, page) == {"url": page}
    assert reference(root, "git@example.org:o/r.git@feature/x:docs/*.md") == {
        "repo": "git@example.org:o/r.git",
        "commit": "feature/x",
        "patterns": ["docs/*.md"],
    }
    assert reference(root, "https://example.org/r.git@3f2a9c1:a.md", page, str(outside)) == [
        {"path": "ferry.md"},
        {"repo": "https://example.org/r.git", "commit": "3f2a9c1", "patterns": ["a.md"]},
        {"url": page},
    ]


def test_a_file_from_outside_is_copied_and_taken_back(root: Path, tmp_path: Path) -> None:
    (tmp_path / "ferry.md").write_bytes(b"# Ferry\r\n\xff")
    before = sorted(root.rglob("*"))
    made = make_leaf(root, "knowledge/sea/ferry", documents=[str(tmp_path / "ferry.md")])
    assert (root / "knowledge/sea/ferry/ferry.md").read_bytes() == b"# Ferry\r\n\xff"
    assert made.files[-1] == "knowledge/sea/ferry/qna.yaml"
    unmake_leaf(made)
    assert sorted(root.rglob("*")) == before


def test_what_stands_beside_the_leaf_is_kept(root: Path, tmp_path: Path) -> None:
    folder = root / "knowledge" / "ferry"
    folder.mkdir()
    (folder / "attribution.txt").write_text("mine\n")
    (folder / "ferry.md").write_text("# Ours\n")
    (tmp_path / "ferry.md").write_text("# Theirs\n")
    with pytest.raises(InputError, match=r"another document called ferry\.md"):
        make_leaf(root, "knowledge/ferry", documents=[str(tmp_path / "ferry.md")])
    assert not (folder / "qna.yaml").exists()
    (tmp_path / "ferry.md").write_text("# Ours\n")
    made = make_leaf(root, "knowledge/ferry", documents=[str(tmp_path / "ferry.md")])
    assert made.files == ("knowledge/ferry/qna.yaml",)
    unmake_leaf(made)
    assert (folder / "attribution.txt").read_text() == "mine\n"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("nowhere.md", "no such document"),
        ("https://me:secret@example.org/a", "user name or a password"),
        ("https://me@example.org/a", "user name or a password"),
        ("git@example.org:o/r.git", "address of a repository"),
        ("https://example.org/r.git", "address of a repository"),
        ("https://example.org/r.git@main", "address of a repository"),
    ],
)
def test_documents_that_cannot_be_used(root: Path, document: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        make_leaf(root, "knowledge/ferry", documents=[document])
    assert message in caught.value.message
    assert "secret" not in str(caught.value)
    assert not (root / "knowledge" / "ferry").exists()


def test_folders_and_names_of_ours_from_outside_are_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "eval.yaml").write_text("")
    with pytest.raises(InputError, match="a folder outside the taxonomy"):
        make_leaf(root, "knowledge/ferry", documents=[str(tmp_path / "texts")])
    with pytest.raises(InputError, match=r"may not be called eval\.yaml"):
        make_leaf(root, "knowledge/ferry", documents=[str(tmp_path / "texts" / "eval.yaml")])
    with pytest.raises(InputError, match="skill has no documents"):
        make_leaf(root, "compositional_skills/x", documents=[str(tmp_path / "texts" / "eval.yaml")])
