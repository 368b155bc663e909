"""``ilab taxonomy``: what is printed where, and the exit codes."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from ilab.cli.app import main

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "examples" / "quickstart"
PUBLIC = ROOT.parent / "shared" / "data" / "instructlab-taxonomy"
LEAF = "compositional_skills/a/qna.yaml"
PAIRS = [{"question": f"What is {n}?", "answer": f"It is {n}."} for n in range(5)]
SKILL = yaml.safe_dump({"version": 3, "created_by": "t", "task_description": "d", "seed_examples": PAIRS})
BROKEN = {
    "not YAML": ("version: 3\nseed_examples: [\n", 2),
    "a schema error": (SKILL.replace("task_description", "task_descriptoin"), 0),
    "an unknown version": (SKILL.replace("version: 3", "version: 9"), 0),
    "a version in words": (SKILL.replace("version: 3", "version: three"), 0),
    "an empty file": ("", 1),
    "a list": ("- a\n", 1),
    "too few examples": (SKILL.split("- answer: It is 4.")[0], 0),
}


@pytest.fixture(autouse=True)
def _not_on_github(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_ACTIONS", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a taxonomy in git with one leaf that is committed on `main`."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    (tmp_path / "compositional_skills/a/attribution.txt").write_text("License: Apache-2.0\n")
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "-m", "first")
    return tmp_path


def git(*arguments: str) -> None:
    names = ("-c", "user.name=t", "-c", "user.email=t@example", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *names, *arguments], check=True, capture_output=True)


def write(root: Path, text: str = SKILL, name: str = LEAF) -> str:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    return name


def ilab(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The program itself, where exit codes are at stake."""
    command = [sys.executable, "-m", "ilab", "taxonomy", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(main, list(arguments))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def test_check_of_a_good_taxonomy(tree: Path) -> None:
    done = ilab("check")
    assert done.stdout == "1 leaf, 5 seed examples: 0 errors, 0 warnings. Next: ilab plan\n"
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("fault", BROKEN)
def test_check_and_diff_end_with_two_and_name_the_place(tree: Path, fault: str) -> None:
    text, line = BROKEN[fault]
    write(tree, text)
    checked, compared = ilab("check"), ilab("diff")
    assert (checked.returncode, compared.returncode) == (2, 2)
    place = rf"{re.escape(LEAF)}:{line or '[1-9][0-9]*'}:[1-9][0-9]*: error: "
    assert re.match(place, checked.stdout)
    assert "Next: mend the errors and type this again" in checked.stdout
    assert compared.stdout == f"{LEAF}\n"
    assert re.search(place, compared.stderr)
    assert "1 error in 1 file" in compared.stderr
    quiet = ilab("diff", "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (2, "", "")


def test_all_errors_come_first_at_once_with_line_and_column(tree: Path) -> None:
    write(tree, SKILL.replace("- answer: It is 1.", "- answr: It is 1."))
    write(tree, "version: 7\n", "knowledge/b/qna.yaml")
    write(tree, SKILL, "foundational_skills/c/qna.yaml")
    write(tree, SKILL, "foundational_skills/c/qna.yml")
    done = run("taxonomy", "check", str(tree))
    lines = [line for line in done.stdout.splitlines() if not line.startswith("    ")]
    line = SKILL.splitlines().index("- answer: It is 1.") + 1
    assert lines == [
        f"{LEAF}:{line}:3: error: `seed_examples[1].answr` is not a known key",
        "knowledge/b/qna.yaml:1:10: error: `version` is `7`; versions 1, 2 and 3 are known",
        "foundational_skills/c/qna.yml:1:1: warning: must be named qna.yaml, not read [file]",
        "foundational_skills/c/qna.yaml:1:1: warning: has no attribution.txt [no-attribution]",
        "3 leaves, 5 seed examples: 2 errors, 2 warnings. Next: mend the errors and type this again",
    ]
    assert "    did you mean `answer`?" in done.stdout
    assert done.exit_code == 2


def test_warnings_alone_end_with_zero(tree: Path) -> None:
    (tree / "compositional_skills/a/attribution.txt").unlink()
    done = ilab("check")
    assert done.returncode == 0
    assert "warning: has no attribution.txt" in done.stdout


def test_formatting_is_never_an_error(tree: Path) -> None:
    loose = "\n\n" + SKILL.replace("created_by: t", "created_by:   t   ").rstrip() + "\n\n\n\n   \n"
    write(tree, loose.replace("seed_examples:", "seed_examples:\n\n\n\n"))
    assert "0 errors, 0 warnings" in run("taxonomy", "check").stdout


def test_check_as_json(tree: Path) -> None:
    write(tree, BROKEN["a schema error"][0])
    done = ilab("check", "--json")
    facts = json.loads(done.stdout)
    assert done.returncode == 2
    assert (facts["valid"], facts["leaves"], facts["warnings"]) == (False, 1, [])
    (error,) = facts["errors"]
    assert (error["file"], error["level"], error["column"]) == (LEAF, "error", 1)
    assert error["hint"] == "did you mean `task_description`?"


def test_annotations_under_github_actions(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tree.parent))  # the repository may be checked out in a folder below
    odd = write(tree, "created_by: 100%\nversion: '8%,:'\n", "knowledge/a,b/qna.yaml")
    for arguments in (["check"], ["--json", "check"], ["diff"]):
        noun = arguments.index(arguments[-1])
        done = run(*arguments[:noun], "taxonomy", *arguments[noun:])
        told = [line for line in done.stderr.splitlines() if line.startswith("::")]
        file = odd.replace(",", "%2C")
        assert told == [
            f"::error file={file},line=2,col=10::`version` is `8%25,:`; versions 1, 2 and 3 are known%0Awrite `version: 3`"
        ]
    monkeypatch.setenv("GITHUB_ACTIONS", "false")
    assert "::error" not in run("taxonomy", "check").output


def test_the_project_says_where_its_taxonomy_is(tree: Path) -> None:
    project = tree / "project"
    project.mkdir()
    (project / "ilab.yaml").write_text("parameters: {sdg_repo_url: ..}\n")
    assert "1 leaf" in run("-C", str(project), "taxonomy", "check").stdout
    assert f"Taxonomy in {project / '..'} is valid" in run("-C", str(project), "taxonomy", "diff").stdout
    (project / "ilab.yaml").write_text("parameters: {sdg_repo_url: 'https://example.org/x.git'}\n")
    shutil.copytree(tree / "compositional_skills", project / "compositional_skills")
    write(project, name="knowledge/of_the_project/qna.yaml")
    assert "2 leaves" in run("-C", str(project), "taxonomy", "check").stdout, "an address is not fetched for a check"


def test_what_cannot_be_checked(tree: Path) -> None:
    for arguments in (["check", "nowhere"], ["tree", "nowhere"], ["diff", "--taxonomy-path", "nowhere"]):
        done = ilab(*arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        assert "nowhere: there is no such file or folder" in done.stderr
    assert ilab("diff", "--quiet", "--taxonomy-path", "nowhere").stderr == ""
    assert ilab("diff", "--quiet", "--taxonomy-base", "nowhere").returncode == 2


def test_diff_prints_the_lines_of_old(tree: Path) -> None:
    new = write(tree, SKILL, "knowledge/../compositional_skills/new/qna.yaml").replace("knowledge/../", "")
    write(tree, SKILL + "\n")
    done = ilab("diff", "--taxonomy-base", "main", "--taxonomy-path", str(tree))
    assert done.stdout == f"{LEAF}\n{new}\nTaxonomy in {tree} is valid :)\n"
    assert (done.returncode, done.stderr) == (0, "")
    green = CliRunner().invoke(main, ["taxonomy", "diff"], color=True)
    assert green.stdout.endswith("\x1b[32mTaxonomy in . is valid :)\x1b[0m\n")
    one = run("taxonomy", "diff", "--taxonomy-path", LEAF, "--taxonomy-base", "no-such")
    assert one.stdout == f"{LEAF}\nTaxonomy in {LEAF} is valid :)\n"


def test_diff_says_what_it_looked_at_when_there_is_nothing(tree: Path) -> None:
    write(tree, SKILL, "knowledge/b/qna.yml")
    write(tree, SKILL, "elsewhere/qna.yaml")
    done = run("taxonomy", "diff")
    assert done.stdout == "Taxonomy in . is valid :)\n"
    assert "compared with main, because there is no branch origin/main" in done.stderr
    assert re.search(r"no leaf changed since main \(commit [0-9a-f]{10}\); 2 changed or untracked files", done.stderr)
    assert "knowledge/b/qna.yml: not listed: must be named qna.yaml" in done.stderr
    assert "elsewhere/qna.yaml: not listed: lies outside knowledge/" in done.stderr
    write(tree, SKILL, "knowledge/../compositional_skills/new/qna.yaml")
    done = run("taxonomy", "diff", "--taxonomy-base", "main")
    assert done.stderr == "knowledge/b/qna.yml: not listed: must be named qna.yaml\n"


def test_diff_as_json_and_with_yaml_rules(tree: Path) -> None:
    write(tree, SKILL, "compositional_skills/new/qna.yaml")
    rules = tree / "rules.yaml"
    rules.write_text("extends: default\n")
    done = run("--json", "taxonomy", "diff", "--yaml-rules", str(rules))
    facts = json.loads(done.stdout)
    assert facts["changed"] == ["compositional_skills/new/qna.yaml"]
    assert (facts["base"], facts["valid"], facts["errors"]) == ("main", True, [])
    assert re.fullmatch("[0-9a-f]{40}", facts["commit"])
    assert "--yaml-rules is not needed" in done.stderr
    missing = run("taxonomy", "diff", "--yaml-rules", "nowhere.yaml")
    assert missing.exit_code == 2 and "nowhere.yaml" in missing.stderr


def test_diff_names_leaves_whose_held_out_questions_changed(tree: Path) -> None:
    items = [{"split": "dev", "question": "What is 7?", "answer": "It is 7."}]
    held = write(tree, yaml.safe_dump({"version": 1, "items": items}), "compositional_skills/a/eval.yaml")
    done = run("taxonomy", "diff", "--taxonomy-base", "main")
    assert done.stdout == f"{LEAF}\nTaxonomy in . is valid :)\n"
    assert done.stderr == f"{LEAF}: changed beside it: {held}\n"
    write(tree, "version: 1\nitems: 3\n", held)
    done = run("taxonomy", "diff", "--taxonomy-base", "main")
    assert done.exit_code == 2
    assert f"{held}:2:" in done.stderr


def test_names_are_harmless_in_a_terminal(tree: Path) -> None:
    write(tree, SKILL, "compositional_skills/\x1b[31mred/qna.yaml")
    done = run("taxonomy", "diff")
    assert done.exit_code == 2
    assert "\x1b" not in done.output
    assert "\\x1b[31mred" in done.stdout


def test_tree_counts(tree: Path) -> None:
    done = run("taxonomy", "tree", str(QUICKSTART / "taxonomy"))
    assert done.exit_code == 0
    facts = json.loads(run("--json", "-C", str(QUICKSTART), "taxonomy", "tree").stdout)
    kiln = facts["leaves"]["knowledge/technology/devices/tavrin_kiln"]
    read = yaml.safe_load((QUICKSTART / "taxonomy/knowledge/technology/devices/tavrin_kiln/qna.yaml").read_text())
    held = yaml.safe_load((QUICKSTART / "taxonomy/knowledge/technology/devices/tavrin_kiln/eval.yaml").read_text())
    splits = [item["split"] for item in held["items"]]
    assert kiln["seeds"] == len(read["seed_examples"])
    assert kiln["pairs"] == sum(len(seed["questions_and_answers"]) for seed in read["seed_examples"])
    assert (kiln["dev"], kiln["test"]) == (splits.count("dev"), splits.count("test"))
    assert (kiln["kind"], kiln["documents"], kiln["git_patterns"]) == ("knowledge", 1, 0)
    assert facts["total"]["leaves"] == len(facts["leaves"]) == 4
    line = next(line for line in done.stdout.splitlines() if "tavrin_kiln" in line)
    told = f"knowledge, {kiln['seeds']} seeds, {kiln['pairs']} pairs, 1 document"
    assert line.endswith(f"tavrin_kiln  {told}, held out: {kiln['dev']} dev, {kiln['test']} test")
    write(tree, BROKEN["a schema error"][0])
    assert ilab("tree").returncode == 2


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="needs ../shared")
def test_the_public_taxonomy() -> None:
    facts = json.loads(run("--json", "taxonomy", "check", str(PUBLIC)).stdout)
    assert (facts["leaves"], facts["valid"]) == (16, True)
    done = run("taxonomy", "diff", "--taxonomy-base", "empty", "--taxonomy-path", str(PUBLIC))
    assert len(done.stdout.splitlines()) == 17
    total = json.loads(run("--json", "taxonomy", "tree", str(PUBLIC)).stdout)["total"]
    assert (total["seeds"], total["pairs"], total["git_patterns"]) == (77, 97, 2)
