"""The reference pages are what the code says, and links between pages lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/README.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reference_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_stale_and_stray_pages_are_named(
    generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "REFERENCE", tmp_path)
    assert generate.run([]) == 0
    assert generate.run(["--check"]) == 0
    steps = tmp_path / "steps.md"
    steps.write_text(steps.read_text(encoding="utf-8").replace("| `epochs` |", "| `epoch` |"), encoding="utf-8")
    (tmp_path / "old.md").write_text("# A page nobody makes\n", encoding="utf-8")
    capsys.readouterr()
    assert generate.run(["--check"]) == 1
    told = capsys.readouterr().err
    assert "steps.md is not up to date" in told
    assert "old.md is made by nothing" in told
    assert "cli.md" not in told


def test_everything_public_is_described(generate: ModuleType) -> None:
    from ilab.cli.app import NOUNS
    from ilab.config import Config, flatten
    from ilab.parameters import TABLE
    from ilab.plugins import names
    from ilab.steps import STEPS

    pages = generate.pages()
    assert all(f"`{parameter.name}`" in pages["parameters.md"] for parameter in TABLE)
    assert all(f"\n## {name}\n" in pages["steps.md"] for name in STEPS)
    assert all(f"\n## ilab {noun}\n" in pages["cli.md"] for noun in NOUNS)
    assert all(f"\n### {name}\n" in pages["flows.md"] for name in names("ilab.blocks"))
    assert all(f"`{path}`" in pages["config.md"] for path in flatten(Config()))


def anchors(page: Path) -> set[str]:
    """The anchors that a forge makes of a page's headings."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page.relative_to(ROOT)} links to {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.relative_to(ROOT)} links to {target}"


def test_every_page_stands_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = {(ROOT / "docs" / target).resolve() for target in LINK.findall(index)}
    expected = {
        page.resolve()
        for folder in ("tutorial", "how-to", "explanation", "reference")
        for page in (ROOT / "docs" / folder).glob("*.md")
    }
    assert expected <= linked, sorted(path.name for path in expected - linked)


def test_every_setting_and_option_of_instructlab_is_told(generate: ModuleType) -> None:
    """Each setting becomes one of ours, or the page says why not; each option is in its command's table."""
    from ilab.cli.upstream import rows
    from ilab.config import known_paths
    from ilab.migrate_table import ROWS
    from ilab.parameters import TABLE

    page = generate.pages()["old-commands.md"]
    ours = {*known_paths(), *(f"parameters.{parameter.name}" for parameter in TABLE)}
    lines = {
        line.split("`")[1]: line for line in page.partition("## Settings")[2].splitlines() if line.startswith("| `")
    }
    assert lines.keys() == ROWS.keys()
    for setting, line in lines.items():
        _, _, here, why, _ = (cell.strip() for cell in re.split(r"(?<!\\)\|", line))
        assert here or why or setting in ("version", "models"), setting
        assert set(re.findall("`([^`]+)`", here)) <= ours, setting
    options = page.partition("## Options")[2].partition("## Mistakes")[0]
    for row in rows():
        heading = f"### ilab {row.command}".rstrip()
        section = next(
            part for part in re.split("(?m)^(?=### )", options) if re.match(rf"{heading}( \(|$)", part, re.M)
        )
        assert f"`{row.option}`" in section, (row.command, row.option)
