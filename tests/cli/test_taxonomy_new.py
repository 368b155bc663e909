"""``ilab taxonomy init``, ``new`` and ``draft`` as a person types them, each telling what to type next."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ilab.cli.app import Options
from ilab.cli.taxonomy_new import LICENCES, draft, init, new
from ilab.errors import InputError, ServiceError
from ilab.taxonomy import scaffold

COMMANDS = {"init": init, "new": new, "draft": draft}
FERRY = "".join(
    f"## Ferry {name}\n\nThe ferry {name} is {number} metres long. The captain of the ferry {name} is Mette {name}berg. "
    f"The hull of the ferry {name} is made of oak. Workers built the ferry {name} in 19{number}. The ferry {name} "
    "crosses the Varn on Tuesday.\n\n"
    for number, name in enumerate(["Arla", "Bodil", "Cilla", "Dagny", "Ebba", "Frida"], 21)
)
Type = Callable[..., Result]


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "ferry.md").write_text(f"# Ferries\n\n{FERRY}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(at: Path) -> Type:
    """Types a command in a folder; errors of ours come through."""

    def typed(name: str, *words: str, folder: str = ".", as_json: bool = False, sets: tuple[str, ...] = ()) -> Result:
        options = Options(Path(folder), sets, None, as_json, False)
        result = CliRunner().invoke(COMMANDS[name], list(words), obj=options)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return typed


def facts(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def listed(root: Path) -> list[Path]:
    """All that is there, without the store."""
    return sorted(path for path in root.rglob("*") if ".ilab" not in path.parts)


def test_from_nothing_to_drafts(at: Path, command: Type) -> None:
    made = command("init", "tax", "--no-git")
    assert made.stdout.splitlines()[0].startswith("Made an empty taxonomy in tax: ")
    assert made.stdout.splitlines()[-1] == (
        "Next: cd tax && ilab taxonomy new knowledge/science/my_topic --document FILE"
    )
    leaf = command("new", "knowledge/ferry", "--document", "../ferry.md", "--author", "Ada", folder="tax")
    assert leaf.stdout.splitlines() == [
        "tax/knowledge/ferry/ferry.md",
        "tax/knowledge/ferry/attribution.txt",
        "tax/knowledge/ferry/qna.yaml",
        "Next: fill in tax/knowledge/ferry/qna.yaml, then: ilab taxonomy check; for seed examples to begin with: "
        "ilab taxonomy draft knowledge/ferry",
    ]
    drafted = command("draft", "knowledge/ferry", folder="tax")
    assert "drafts are made by rule from the text, not by a language model" in drafted.stderr
    assert "5 drafts waiting" in drafted.stdout
    assert "remove its line `draft: true`; then: ilab taxonomy check" in drafted.stdout
    assert (at / "tax/knowledge/ferry/qna.yaml").read_text().count("draft: true") == 5
    places = [line for line in drafted.stdout.splitlines() if ": draft with " in line]
    for line in places:
        number = int(line.split(":")[1])
        assert (at / "tax/knowledge/ferry/qna.yaml").read_text().splitlines()[number - 1].startswith("  - context: |")
    assert len(places) == 5
    again = command("draft", "knowledge/ferry", folder="tax")
    assert "Nothing is missing: tax/knowledge/ferry/qna.yaml has 5 seed examples" in again.stdout


def test_a_dry_run_prints_and_writes_nothing(at: Path, command: Type) -> None:
    command("init", "tax", "--no-git")
    command("new", "knowledge/ferry", "--document", "../ferry.md", folder="tax")
    before = (at / "tax/knowledge/ferry/qna.yaml").read_bytes()
    shown = command("draft", "knowledge/ferry", "--dry-run", "--count", "2", folder="tax")
    assert shown.stdout.count("    draft: true  # from ferry.md, ") == 2
    assert "Nothing is written" in shown.stdout
    assert (at / "tax/knowledge/ferry/qna.yaml").read_bytes() == before


def test_a_leaf_is_made_from_a_document_or_not_at_all(at: Path, command: Type) -> None:
    command("init", "tax", "--no-git")
    before = listed(at / "tax")
    command("draft", "knowledge/sea/ferry", "--document", "../ferry.md", "--dry-run", folder="tax")
    assert listed(at / "tax") == before
    with pytest.raises(ServiceError, match="no server answers here"):
        command(
            *("draft", "knowledge/sea/ferry", "--document", "../ferry.md", "--model", "m"),
            folder="tax",
            sets=("where.teacher.url=http://127.0.0.1:9/v1",),
        )
    assert listed(at / "tax") == before
    made = command("draft", "knowledge/sea/ferry", "--document", "../ferry.md", folder="tax")
    assert "made the leaf knowledge/sea/ferry: 3 files" in made.stdout
    assert "5 drafts waiting" in made.stdout
    with pytest.raises(InputError, match="exists already"):
        command("draft", "knowledge/sea/ferry", "--document", "../ferry.md", folder="tax")
    with pytest.raises(InputError, match="there is no leaf 'knowledge/sea/boat'") as caught:
        command("draft", "knowledge/sea/boat", folder="tax")
    assert "--document FILE" in caught.value.hint


def test_results_as_json(at: Path, command: Type) -> None:
    made = facts(command("init", "tax", "--no-git", "--license", "cc-by-4.0", as_json=True))
    assert made["root"] == str(at / "tax")
    assert "LICENSE" in made["written"]
    leaf = facts(command("new", "ferry", "--document", "../ferry.md", "--eval", folder="tax", as_json=True))
    assert (leaf["path"], leaf["kind"]) == ("knowledge/ferry", "knowledge")
    assert "knowledge/ferry/eval.yaml" in leaf["files"]
    drafted = facts(command("draft", "knowledge/ferry", "--count", "3", folder="tax", as_json=True))
    assert (drafted["wanted"], len(drafted["drafts"]), len(drafted["waiting"]), drafted["by"]) == (3, 3, 3, "")
    assert all(len(one["pairs"]) >= 3 for one in drafted["drafts"])


def test_the_author_is_who_git_knows_or_nobody(at: Path, command: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    command("init", "tax", "--no-git")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(at / "config"))
    command("new", "knowledge/nobody", folder="tax")
    assert "\ncreated_by:\n" in (at / "tax/knowledge/nobody/qna.yaml").read_text()
    (at / "config").write_text("[user]\n\tname = Ada Lovelace\n")
    command("new", "knowledge/somebody", folder="tax")
    assert "\ncreated_by: Ada Lovelace\n" in (at / "tax/knowledge/somebody/qna.yaml").read_text()


def test_the_licences_offered_are_those_there_are() -> None:
    assert sorted(LICENCES) == sorted([*scaffold.LICENCES, scaffold.NO_LICENCE])
