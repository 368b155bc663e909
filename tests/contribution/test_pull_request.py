"""A contribution from the first clone to the nightly build, on a git remote on this disk, by the shipped workflows.

The scripts that run are the `run:` lines of the workflow files themselves; what a forge would provide (checkouts,
variables) is made here.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from ilab.testing.teacher import serve

ROOT = Path(__file__).resolve().parents[2]
TAXONOMY = ROOT / "examples" / "quickstart" / "taxonomy"
WORKFLOWS = Path(str(resources.files("ilab.taxonomy") / "template" / ".github" / "workflows"))
GITLAB = Path(str(resources.files("ilab.taxonomy") / "template" / ".gitlab-ci.yml"))
SKILL = "compositional_skills/scheduling/calendar_line"
RECORD = "compositional_skills/grounded/logistics/delivery_record"
NAMES = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")


def run(*command: str, cwd: Path, code: int | None = 0, **more: str) -> str:
    """Standard output of a command; what it wrote to standard error is shown when the exit code is another."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **more}
    for name in ("GITHUB_ACTIONS", "GITHUB_WORKSPACE"):
        environment.pop(name, None) if name not in more else None
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert code is None or done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


def git(*arguments: str, cwd: Path) -> str:
    return run("git", *NAMES, *arguments, cwd=cwd)


def script(name: str, job: str, step: str) -> str:
    steps: list[dict[str, Any]] = yaml.safe_load((WORKFLOWS / name).read_text())["jobs"][job]["steps"]
    (found,) = [entry["run"] for entry in steps if entry.get("name") == step]
    return str(found)


def copy(leaf: str, root: Path) -> None:
    shutil.copytree(TAXONOMY / leaf, root / leaf)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A bare repository with a taxonomy of one leaf on `main`, made the way a maintainer makes one."""
    made = tmp_path / "made"
    run("ilab", "taxonomy", "init", str(made), "--no-git", cwd=tmp_path)
    copy(SKILL, made)
    git("init", "--quiet", cwd=made)
    git("add", "--all", cwd=made)
    git("commit", "--quiet", "-m", "a taxonomy", cwd=made)
    git("clone", "--quiet", "--bare", str(made), str(tmp_path / "origin.git"), cwd=tmp_path)
    return tmp_path / "origin.git"


@pytest.fixture
def contributor(origin: Path, tmp_path: Path) -> Path:
    """A contributor's clone on a branch of its own."""
    clone = tmp_path / "contributor"
    git("clone", "--quiet", str(origin), str(clone), cwd=tmp_path)
    git("switch", "--quiet", "-c", "delivery", cwd=clone)
    return clone


def push(clone: Path, message: str) -> None:
    git("add", "--all", cwd=clone)
    git("commit", "--quiet", "-m", message, cwd=clone)
    git("push", "--quiet", "--force", "origin", "delivery", cwd=clone)


def on_github(origin: Path, workspace: Path, code: int = 0, **secrets: str) -> str:
    """What the job `review` does for the pull request of `delivery`: two checkouts, then its script."""
    workspace.mkdir()
    git("clone", "--quiet", "--depth=1", f"file://{origin}", "base", cwd=workspace)
    git("clone", "--quiet", str(origin), "contribution", cwd=workspace)
    git("merge", "--quiet", "--no-ff", "-m", "merge", "origin/delivery", cwd=workspace / "contribution")
    text = script("review.yml", "review", "review")
    run("bash", "-e", "-c", text, cwd=workspace, code=code, GITHUB_BASE_REF="main", **secrets)
    return (workspace / "comment.md").read_text()


def test_a_good_leaf_is_reviewed_merged_and_built_by_night(origin: Path, contributor: Path, tmp_path: Path) -> None:
    copy(RECORD, contributor)
    push(contributor, "delivery records")
    comment = on_github(origin, tmp_path / "runner", TEACHER_API_KEY="")
    assert "1 leaf touched, no errors" in comment
    assert f"| `{RECORD}` | new | grounded |" in comment
    assert "No teacher is asked" in comment
    assert f"<code>{RECORD}</code>" in comment
    assert "Q: " in comment
    assert SKILL not in comment

    nightly = tmp_path / "nightly"
    git("clone", "--quiet", str(origin), str(nightly), cwd=tmp_path)
    build = ("ilab", "--json", "data", "generate", "-p", "sdg_scale_factor=3")
    before = json.loads(run(*build, cwd=nightly))
    assert list(before["leaves"]) == [SKILL]
    git("merge", "--quiet", "--no-ff", "-m", "merge", "origin/delivery", cwd=nightly)
    after = json.loads(run(*build, cwd=nightly))
    assert list(after["leaves"]) == [RECORD, SKILL]
    assert after["leaves"][SKILL] == before["leaves"][SKILL]
    assert after["counts"]["from_memo"] == before["counts"]["accepted"]  # only the new leaf's rows were made
    assert script("nightly.yml", "build", "build").strip() == "ilab run"


def test_a_broken_leaf_is_refused_with_its_place(origin: Path, contributor: Path, tmp_path: Path) -> None:
    copy(RECORD, contributor)
    file = contributor / RECORD / "qna.yaml"
    file.write_text(file.read_text().replace("task_description:", "task_descripton:"))
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "task_descripton" in text)
    push(contributor, "with a typing error")
    comment = on_github(origin, tmp_path / "runner", code=2)
    assert "1 error to mend before this can be merged" in comment
    assert f"`{RECORD}/qna.yaml:{line}:1`" in comment
    assert "task\\_description" in comment
    assert "Q: " not in comment


def test_settings_of_the_contribution_do_not_count(origin: Path, contributor: Path, tmp_path: Path) -> None:
    copy(RECORD, contributor)
    (contributor / "ilab.yaml").write_text("where: {teacher: {url: 'http://127.0.0.1:9/v1', api_key: 'env:HOME'}}\n")
    push(contributor, "with other settings")
    assert "No teacher is asked" in on_github(origin, tmp_path / "runner")


def test_a_preview_with_a_teacher_stays_within_its_calls(origin: Path, contributor: Path, tmp_path: Path) -> None:
    copy(RECORD, contributor)
    push(contributor, "delivery records")
    with serve() as teacher:
        settings = f"""\
parameters: {{sdg_repo_url: ., sdg_teacher_model: teacher, sdg_scale_factor: 30}}
where: {{teacher: {{url: '{teacher.url}', api_key: 'env:TEACHER_API_KEY', price_read: 1, price_written: 4}}}}
"""
        maintainer = tmp_path / "maintainer"
        git("clone", "--quiet", str(origin), str(maintainer), cwd=tmp_path)
        (maintainer / "ilab.yaml").write_text(settings)
        git("commit", "--quiet", "--all", "-m", "a teacher", cwd=maintainer)
        git("push", "--quiet", "origin", "main", cwd=maintainer)
        comment = on_github(origin, tmp_path / "inside", TEACHER_API_KEY="k")
        assert 0 < len(teacher.calls) <= 30
        assert "calls** of the teacher" in comment
        assert "USD" in comment
        assert "with 2 teacher calls" in comment
        asked = len(teacher.calls)
        comment = on_github(origin, tmp_path / "fork", TEACHER_API_KEY="")
        assert "The teacher's key is not available here" in comment
        assert len(teacher.calls) == asked


def test_the_gitlab_job_writes_the_same_comment(origin: Path, contributor: Path, tmp_path: Path) -> None:
    copy(RECORD, contributor)
    push(contributor, "delivery records")
    project = tmp_path / "builds" / "project"
    project.parent.mkdir()
    git("clone", "--quiet", str(origin), str(project), cwd=tmp_path)
    git("switch", "--quiet", "--detach", "origin/delivery", cwd=project)
    job = yaml.safe_load(GITLAB.read_text())["review"]
    lines = [line for line in job["script"] if not line.startswith("pip ")]
    variables = {"CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main", "CI_PROJECT_DIR": str(project)}
    run("bash", "-e", "-c", "\n".join(lines), cwd=project, **variables)
    assert f"| `{RECORD}` | new | grounded |" in (project / "comment.md").read_text()
    after = "\n".join(job["after_script"])
    assert "no API_TOKEN" in run("bash", "-e", "-c", after, cwd=project, REVIEW_TOKEN="", CI_MERGE_REQUEST_IID="7")
