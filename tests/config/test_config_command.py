"""`ilab config`, as it is typed."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from ilab.cli.app import main
from ilab.config import cache_home, data_home, user_file
from ilab.errors import IlabError, InputError, InputErrors, SetupError
from ilab.hardware import GIB, Gpu, Hardware

GPUS = Hardware("Linux", "Some CPU", 16, 256 * GIB, (Gpu("NVIDIA L4", "nvidia", 22 * GIB + 500_000_000),) * 2)


def ilab(*arguments: str, answers: str = "") -> Result:
    return CliRunner().invoke(main, arguments, input=answers)


def good(*arguments: str, answers: str = "") -> Result:
    done = ilab(*arguments, answers=answers)
    assert done.exit_code == 0 and done.exception is None, (done.output, done.exception)
    return done


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to type commands in, on a machine with two GPUs."""
    monkeypatch.setattr("ilab.hardware.detect", lambda: GPUS)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def taxonomy(tmp_path: Path) -> str:
    """The address of a git repository with two commits."""
    folder = tmp_path / "repository"
    (folder / "knowledge").mkdir(parents=True)
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True)
    for text in ("one", "two"):
        (folder / "README.md").write_text(text)
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-q", "-m", text], check=True)
    return folder.as_uri()


def settings() -> Any:
    return yaml.safe_load(user_file().read_text())


def commits(folder: Path) -> int:
    told = subprocess.run(["git", "-C", str(folder), "rev-list", "--count", "HEAD"], capture_output=True, check=True)
    return int(told.stdout)


@pytest.mark.parametrize(("more", "count"), [((), 2), (("--min-taxonomy",), 1)])
def test_init_looks_clones_and_writes(here: Path, taxonomy: str, more: tuple[str, ...], count: int) -> None:
    done = good("config", "init", "--non-interactive", "--repository", taxonomy, *more)
    cloned = data_home() / "taxonomy"
    assert commits(cloned) == count
    assert settings() == {
        "profile": "gpu-24",
        "where": {"train": {"processes": 2}},
        "parameters": {"sdg_repo_url": str(cloned), "taxonomy_base": "origin/main"},
    }
    assert "machine   2 × NVIDIA L4 (22 GiB)" in done.output
    assert "teacher  Qwen/Qwen3-30B-A3B-GGUF" in done.output and "licence Apache-2.0" in done.output
    good("config", "validate")
    told = json.loads(good("--json", "config", "show", "--origin").stdout)
    assert told["where.train.processes"] == {"value": 2, "origin": "config.yaml:8"}
    assert told["where.jobs"] == {"value": 1, "origin": "profile gpu-24"}


def test_init_asks_in_the_order_that_scripts_know(here: Path, taxonomy: str, tmp_path: Path) -> None:
    (cache_home() / "models").mkdir(parents=True)
    mine = tmp_path / "mine"
    done = good("config", "init", "--repository", taxonomy, answers=f"{mine}\nY\n/models/own\n")
    questions = ("Path of the taxonomy", "is empty. Clone file://", "Model to serve")
    places = [done.output.index(question) for question in questions]
    assert places == sorted(places)
    assert (mine / "README.md").read_text() == "two"
    assert settings()["models"] == {"default": "/models/own"}
    before = user_file().read_text()
    assert "nothing was changed" in good("config", "init", answers="n\n").output
    assert user_file().read_text() == before
    # What is given is asked for all the same, as scripts know it; an empty line takes it.
    given = ("--taxonomy-path", str(mine), "--model-path", "/models/own")
    good("config", "init", "--profile", "cpu", *given, answers="y\n\n\n")
    assert user_file().with_name("config.yaml.old").read_text() == before
    assert settings()["models"] == {"default": "/models/own"}
    good("config", "init", "--profile", "cpu", answers=f"y\n{mine}\n\n")
    assert settings()["profile"] == "cpu"
    assert "models" not in settings()


def test_init_without_a_clone(here: Path) -> None:
    done = good("config", "init", answers="tax\nn\n")
    assert "there is no taxonomy yet; to begin one: ilab taxonomy init" in done.output
    assert settings()["parameters"] == {"sdg_repo_url": str(here / "tax")}


def test_init_takes_a_taxonomy_that_is_there(here: Path, taxonomy: str) -> None:
    (here / "tax").mkdir()
    (here / "tax" / "file").write_text("")
    done = good(
        "config",
        "init",
        "--non-interactive",
        "--taxonomy-path",
        "tax",
        "--taxonomy-base",
        "v1",
        "--repository",
        taxonomy,
    )
    assert "nothing is cloned" in done.output
    assert settings()["parameters"] == {"sdg_repo_url": str(here / "tax"), "taxonomy_base": "v1"}


def test_init_says_which_profile_why_and_what_is_next(here: Path, taxonomy: str) -> None:
    text = good("config", "init", "--non-interactive", "--repository", taxonomy).output
    assert "why       it is for a GPU with at least 22 GiB; the smallest GPU has 22.5 GiB" in text
    assert "next      ilab doctor   ilab model download" in text
    told = json.loads(good("--json", "config", "init", "--non-interactive", "--profile", "cpu").stdout)
    assert (told["profile"], told["why"][:12]) == ("cpu", "it was named")


def test_init_takes_no_clone_of_something_else(here: Path, taxonomy: str, tmp_path: Path) -> None:
    good("config", "init", "--non-interactive", "--repository", taxonomy)
    assert "nothing is cloned" in good("config", "init", "--non-interactive", "--repository", f"{taxonomy}/").output
    other = "ssh://ann:s3cret@example.org/other.git"
    done = ilab("config", "init", "--non-interactive", "--repository", other)
    assert isinstance(done.exception, InputError)
    assert "not of ssh://example.org/other.git" in done.exception.message
    assert "s3cret" not in done.output + str(done.exception)


def test_init_shows_no_password(here: Path) -> None:
    address = "http://ann:s3cret@127.0.0.1:9/taxonomy.git"
    done = ilab("config", "init", "--non-interactive", "--repository", address)
    assert isinstance(done.exception, IlabError) and "127.0.0.1:9" in done.exception.message
    assert "s3cret" not in done.output + str(done.exception)


def test_init_clears_what_a_killed_clone_left(here: Path, taxonomy: str) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = [data_home() / f".clone-{pid}-abc" for pid in (gone.pid, os.getpid())]
    for folder in left:
        (folder / "tree").mkdir(parents=True)
    good("config", "init", "--non-interactive", "--repository", taxonomy)
    assert [folder.exists() for folder in left] == [False, True]


def test_init_that_cannot_clone_writes_nothing(here: Path, tmp_path: Path) -> None:
    done = ilab("config", "init", "--non-interactive", "--repository", (tmp_path / "none").as_uri())
    assert isinstance(done.exception, InputError)
    assert "--taxonomy-path DIR" in done.exception.hint
    assert not user_file().exists()
    assert not (data_home() / "taxonomy").exists()
    bad = ilab("config", "init", "--non-interactive", "--repository", "ext::sh -c true")
    assert isinstance(bad.exception, InputError)


def test_init_of_a_project(here: Path) -> None:
    (here / "taxonomy").mkdir()
    (here / "taxonomy" / "file").write_text("")
    good("config", "init", "--non-interactive", "--project")
    assert yaml.safe_load((here / "ilab.yaml").read_text()) == {"parameters": {"sdg_repo_url": "taxonomy"}}
    assert not user_file().exists(), "which machine it is stands in no project"


def test_init_from_a_file_of_instructlabs(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "tax").mkdir()
    (here / "tax" / "file").write_text("")
    template = tmp_path / "theirs.yaml"
    template.write_text(f"generate: {{taxonomy_path: {here / 'tax'}}}\ntrain: {{device: cuda, nproc_per_node: 4}}\n")
    good("config", "init", "--non-interactive", "--config", str(template))
    assert settings()["where"]["train"]["processes"] == 2, "what this machine has counts more"
    assert settings()["parameters"] == {"sdg_repo_url": str(here / "tax")}
    monkeypatch.setenv("ILAB_GLOBAL_CONFIG", str(template))
    good("config", "init", "--profile", "gpu-24", answers="y\n")
    assert settings()["where"] == {"device": "cuda", "train": {"processes": 4}}
    monkeypatch.delenv("ILAB_GLOBAL_CONFIG")
    good("config", "init", "--non-interactive", "--profile", str(template))
    assert settings()["where"]["device"] == "cuda"


def test_init_with_a_profile_of_instructlabs(here: Path, tmp_path: Path) -> None:
    (here / "tax").mkdir()
    (here / "tax" / "file").write_text("")
    profile = tmp_path / "llama.yaml"
    profile.write_text(
        f"generate: {{taxonomy_path: {here / 'tax'}, taxonomy_base: empty}}\ngeneral: {{teacher_model_id: llama-3.3}}\n"
        "models: [{id: llama-3.3, family: meta-llama, path: /models/llama}]\n"
    )
    good("config", "init", "--non-interactive", f"--profile={profile}")
    assert settings()["models"] == {
        "named": {"llama-3.3": {"path": "/models/llama", "family": "meta-llama"}},
        "teacher": "/models/llama",
    }
    assert settings()["parameters"]["sdg_teacher_family"] == "llama"
    assert settings()["parameters"]["taxonomy_base"] == "empty"
    good("config", "validate")


def test_another_file_than_the_users(here: Path) -> None:
    (here / "other.yaml").write_text("where: {jobs: 7}\n")
    user_file().parent.mkdir(parents=True)
    user_file().write_text("where: {jobs: 8}\n")
    for name, jobs in (("other.yaml", 7), ("DEFAULT", 2)):
        told = json.loads(good("--json", "--config", name, "config", "show", "--key", "where.jobs").stdout)
        assert told == {"where.jobs": jobs}
    good("--config", "other.yaml", "config", "set", "where.jobs", "9")
    assert yaml.safe_load((here / "other.yaml").read_text()) == {"where": {"jobs": 9}}


def test_show_is_a_file_that_can_be_used(here: Path) -> None:
    (here / "ilab.yaml").write_text("parameters: {train_seed: 5}\nwhere: {threads: 3}\n")
    text = good("config", "show").output
    assert "# epochs" not in text and "# seed of data order and dropout\n  train_seed: 5" in text
    assert "  # folder that keeps all artifacts, or s3://BUCKET/PREFIX\n  store:" in text
    bare = good("config", "show", "--without-comments").output
    assert "#" not in bare
    assert yaml.safe_load(bare) == yaml.safe_load(text)
    assert good("config", "show", "-k", "where.threads", "-wc").output == "where:\n  threads: 3\n"
    assert good("config", "show", "-k", "where.threads", "--origin").output == "where.threads: 3    # ilab.yaml:2\n"
    done = ilab("config", "show", "-k", "where.thread")
    assert isinstance(done.exception, InputError) and "where.threads" in done.exception.hint


def test_set_writes_to_the_project_or_to_the_user(here: Path) -> None:
    good("config", "set", "where.threads", "3")
    assert settings() == {"where": {"threads": 3}}
    (here / "ilab.yaml").write_text("# mine\n")
    good("config", "set", "parameters.sdg_scale_factor", "4")
    assert (here / "ilab.yaml").read_text() == "# mine\nparameters:\n  sdg_scale_factor: 4\n"
    good("config", "set", "--user", "models.teacher", "openai/gpt-oss-20b")
    assert settings()["models"] == {"teacher": "openai/gpt-oss-20b"}
    done = ilab("config", "set", "where.thread", "3")
    assert isinstance(done.exception, InputError)
    assert (done.exception.where, done.exception.hint) == (str(here / "ilab.yaml"), "did you mean 'threads'?")


def editor(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor that is a shell script; the file is $2, after an argument of its own."""
    path = folder / "editor"
    path.write_text(f'#!/bin/sh\ntest "$1" = --wait || exit 9\n{script}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{path} --wait")


def test_edit_is_checked_before_it_counts(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "ilab.yaml").write_text("where: {threads: 1}\n")
    editor(tmp_path, 'echo "where: {threads: 2}" > "$2"', monkeypatch)
    good("config", "edit")
    assert (here / "ilab.yaml").read_text() == "where: {threads: 2}\n"
    assert "nothing was changed" in good("config", "edit").output
    twice = f'test -e {tmp_path}/again && echo "where: {{threads: 4}}" > "$2" || echo "where: {{thread: 3}}" > "$2"; touch {tmp_path}/again'
    editor(tmp_path, twice, monkeypatch)
    done = good("config", "edit", answers="y\n")
    assert "unknown setting 'where.thread'" in done.output and "Go back to the editor?" in done.output
    assert (here / "ilab.yaml").read_text() == "where: {threads: 4}\n"
    editor(tmp_path, 'echo "[" > "$2"', monkeypatch)
    done = ilab("config", "edit", answers="n\n")
    assert isinstance(done.exception, InputError) and "as it was" in done.exception.message
    assert (here / "ilab.yaml").read_text() == "where: {threads: 4}\n"


@pytest.mark.parametrize("broken", [b"where: {threads: [\n", b"where: {thread: 1}\n", b"\xff\xfe: 1\n", b"\t- a"])
def test_edit_opens_a_broken_file_too(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bytes
) -> None:
    (here / "ilab.yaml").write_bytes(broken)
    editor(tmp_path, f'cp "$2" {tmp_path}/seen; echo "where: {{threads: 2}}" > "$2"', monkeypatch)
    good("config", "edit")
    assert (tmp_path / "seen").stat().st_size >= len(broken)
    assert (here / "ilab.yaml").read_text() == "where: {threads: 2}\n"


@pytest.mark.parametrize(("name", "error"), [("/nowhere/editor", SetupError), ("false", InputError)])
def test_no_editor(here: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: type[Exception]) -> None:
    monkeypatch.setenv("VISUAL", name)
    done = ilab("config", "edit")
    assert isinstance(done.exception, error)
    assert not user_file().exists()


def test_without_a_terminal_no_editor_is_guessed(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vi").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "vi").chmod(0o755)
    for name in ("VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = ilab("config", "edit")
    assert isinstance(done.exception, InputError) and "no terminal" in done.exception.message


def test_validate_names_every_mistake(here: Path) -> None:
    (here / "a.yaml").write_text("where: {jobs: 0}\nparameters:\n  train_sed: 1\n")
    done = ilab("config", "validate", "a.yaml")
    assert isinstance(done.exception, InputErrors)
    assert [error.where for error in done.exception.errors] == ["a.yaml:1", "a.yaml:3"]
    (here / "b.yaml").write_text("train: {device: cpu, nproc_per_node: 0}\n")
    assert isinstance(ilab("config", "validate", "b.yaml").exception, InputErrors)
    (here / "b.yaml").write_text("train: {device: hpu}\n")
    assert "of InstructLab, version 0.x; 1 settings have no meaning here" in good("config", "validate", "b.yaml").output
    (here / "p.yaml").write_text("fits: {kind: cpu, memory: 1}\nwhere: {jobs: 3}\n")
    assert "p.yaml: a profile, no mistakes" in good("config", "validate", "p.yaml").output
    (here / "p.yaml").write_text("fits: {kind: cpu, memory: 1}\nwhere: {job: 3}\n")
    assert isinstance(ilab("config", "validate", "p.yaml").exception, InputErrors)
    assert "there is no file yet" in good("config", "validate").output


def test_migrate_writes_anew_and_lists_what_is_left(here: Path) -> None:
    old = "generate: {sdg_scale_factor: 5, num_instructions: 9}\nchat: {vi_mode: false, temperature: 1.0}\n"
    (here / "theirs.yaml").write_text(old)
    done = good("config", "migrate", "theirs.yaml")
    assert yaml.safe_load(done.stdout) == {"parameters": {"sdg_scale_factor": 5}}
    assert "theirs.yaml:1: generate.num_instructions: 9 has no meaning here; give it with the command" in done.stderr
    assert "2 more only say what InstructLab did anyway" in done.stderr
    good("config", "migrate", "theirs.yaml", "--output", "theirs.yaml")
    assert (here / "theirs.yaml.old").read_text() == old
    good("config", "validate", "theirs.yaml")
    done = ilab("config", "migrate", "theirs.yaml")
    assert isinstance(done.exception, InputError) and "no file of InstructLab's" in done.exception.message
    told = json.loads(good("--json", "config", "migrate", "theirs.yaml.old").stdout)
    assert told["left"][0]["setting"] == "generate.num_instructions"


def test_a_file_of_instructlabs_is_read_with_a_note(here: Path) -> None:
    user_file().parent.mkdir(parents=True)
    user_file().write_text("train: {device: cpu}\n")
    done = good("config", "show", "--key", "where.device", "-wc")
    assert done.stdout == "where:\n  device: cpu\n"
    assert done.stderr.count("is a file of InstructLab's") == 1


def test_profiles_are_listed_with_licences(here: Path) -> None:
    text = good("config", "profiles").output
    assert "its profile: gpu-24" in text and "gpus-8: eight GPUs" in text
    assert text.count("licence Apache-2.0") > 20
    assert json.loads(good("--json", "config", "profiles").stdout)["here"] == "gpu-24"
