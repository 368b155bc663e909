"""Bad input: one clear error each, with what is wrong, where, and what to do; never a traceback; nothing lost."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ilab.sdg.flow import SHIPPED
from ilab.testing.teacher import serve

KILN = "knowledge/technology/devices/tavrin_kiln"
CALENDAR = "compositional_skills/scheduling/calendar_line"
CORRECTED = ("run", "--until", "generate")


def refused(project: Any, code: int, *texts: str, command: tuple[str, ...] = ("run",)) -> str:
    """``command`` fails with ``code`` and says ``texts`` on standard error; nothing on standard output."""
    done = project.ilab(*command)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    errors = done.stderr[done.stderr.index("error: ") :]
    for text in texts:
        assert text in errors
    return errors


def corrected(project: Any) -> None:
    """The same project, mended, builds samples."""
    done = project.ilab(*CORRECTED)
    assert done.returncode == 0, done.stderr


# -- the taxonomy and its documents ------------------------------------------------------------------------------


def test_an_empty_taxonomy(project: Any) -> None:
    leaves = project.root / "taxonomy"
    leaves.rename(project.root / "aside")
    leaves.mkdir()
    refused(project, 2, str(leaves), "ilab taxonomy new", "qna.yaml")
    leaves.rmdir()
    refused(project, 2, "there is no taxonomy at 'taxonomy'", "give a folder")
    (project.root / "aside").rename(leaves)
    corrected(project)


def test_yaml_that_cannot_be_read_names_the_line(project: Any) -> None:
    file = f"taxonomy/{CALENDAR}/qna.yaml"
    project.edit(file, "created_by: ilab", "created_by: [ilab")
    refused(project, 2, f"{CALENDAR}/qna.yaml:3")
    project.edit(file, "created_by: [ilab", "created_by: ilab")
    corrected(project)


def test_all_mistakes_of_all_leaves_are_told_at_once(project: Any) -> None:
    project.edit(f"taxonomy/{CALENDAR}/qna.yaml", "task_description:", "task_descripton:")
    project.edit(f"taxonomy/{KILN}/qna.yaml", "domain: technology\n", "")
    errors = refused(project, 2, f"{CALENDAR}/qna.yaml:3", "task_descripton", f"{KILN}/qna.yaml", "domain", "2 files")
    assert errors.count("error: ") >= 2


def test_a_missing_document(project: Any) -> None:
    document = project.root / "taxonomy" / KILN / "tavrin_kiln.md"
    document.rename(document.with_name("tavrin_kilm.md"))
    refused(project, 2, f"{KILN}/qna.yaml:", "matches no file", "did you mean", "tavrin_kilm.md")
    document.with_name("tavrin_kilm.md").rename(document)
    corrected(project)


def test_a_leaf_whose_rows_are_all_refused(project: Any) -> None:
    """The shipped flow also takes the leaf's seed examples; one of pairs alone finds nothing in orders."""
    flow = project.root / "flow"
    shutil.copytree(SHIPPED / "extractive", flow)
    pairs = "branches:\n  pairs: {input: chunk, blocks: [{type: extract}]}\n"
    (flow / "knowledge.yaml").write_text(f"name: pairs\nversion: 1\n{pairs}")
    for name in ("grounded_skills.yaml", "freeform_skills.yaml"):
        (flow / name).write_text((flow / name).read_text().replace("name: extractive", "name: pairs"))
    document = project.root / "taxonomy" / KILN / "tavrin_kiln.md"
    whole = document.read_text()
    document.write_text("# Kiln\n\nOpen the door. Stop now.\n\nGo on.\n")
    command = ("run", "-p", "sdg_pipeline=flow", "--until", "generate")
    errors = refused(
        project, 2, f"no sample of the leaf {KILN} was accepted", "no rule applies", "qna.yaml:1", command=command
    )
    assert "mend the leaf or its documents" in errors
    assert project.store.latest("generate") is None
    document.write_text(whole)
    done = project.ilab(*command)
    assert done.returncode == 0, done.stderr
    assert project.latest("generate").counts["from_memo"] > 0, "the other leaf's rows were kept"


# -- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "texts"),
    [
        (
            ("run", "-p", "sdg_scale_facto=3"),
            ("unknown parameter 'sdg_scale_facto'", "did you mean 'sdg_scale_factor'?"),
        ),
        (("run", "-p", "sdg_scale_factor=many"), ("-p: sdg_scale_factor", "'many' is not a number")),
        (("run", "-p", "sdg_scale_factor=0"), ("out of range", "valid: > 0")),
        (("run", "-p", "gate_on_inconclusive=maybe"), ("'maybe' is out of range", "valid: stop, publish")),
        (("run", "-p", "sdg_scale_factor"), ("-p takes NAME=VALUE", "for example")),
        (("run", "--force", "trian-phase-1"), ("no step 'trian-phase-1'", "did you mean 'train-phase-1'?")),
        (("run", "--until", "genrate"), ("no step 'genrate'", "did you mean 'generate'?")),
        (("run", "--only", "genrate"), ("no step 'genrate'", "did you mean 'generate'?")),
        (("run", "--pipeline", "quikstart"), ("no pipeline 'quikstart'", "did you mean 'quickstart'?")),
        (("run", "-p", "sdg_pipeline=extractiv"), ("extractiv",)),
        (("run", "-p", "train_learning_rate=inf"), ("learning_rate is inf", "step train-phase-1")),
        (("--set", "where.thread=2", "run"), ("unknown setting 'where.thread'", "did you mean 'threads'?")),
        (("--set", "where.threads=two", "run"), ("where.threads", "--set")),
        (("--set", "where.threads=0", "run"), ("where.threads", "greater than 0")),
        (("--set", "where.threads", "run"), ("--set takes PATH=VALUE", "for example")),
        (("run", "-p", "sdg_teacher_model=m"), ("is not on this machine, and no server has it", "where.teacher.url")),
        (("run", "-p", "sdg_base_model=nowhere"), ("no such base model: nowhere", "Hugging Face directory")),
        (("run", "-p", "sdg_base_model=taxonomy"), ("config.json, tokenizer.json is missing", "needs config.json")),
        (("run", "-p", "sdg_repo_url="), ("no sdg_repo_url given", "-p sdg_repo_url=")),
    ],
)
def test_settings_that_cannot_be(project: Any, command: tuple[str, ...], texts: tuple[str, ...]) -> None:
    refused(project, 2, *texts, command=command)
    assert project.digests() == {}, "refused before anything was made"


def test_a_project_file_that_cannot_be_read_names_the_line(project: Any) -> None:
    file = project.root / "ilab.yaml"
    good = file.read_text()
    for old, new, texts in [
        ("  threads: 1", "  thread: 1", ("ilab.yaml:15", "unknown setting 'where.thread'", "'threads'")),
        ("  threads: 1", "  threads: one", ("ilab.yaml:15", "where.threads")),
        ("  threads: 1", "  threads: [1", ("ilab.yaml:", "cannot be read")),
        ("  sdg_scale_factor: 4", "  sdg_scale_fator: 4", ("ilab.yaml", "did you mean 'sdg_scale_factor'?")),
        ("parameters:", "parametres:", ("ilab.yaml:2", "did you mean 'parameters'?")),
    ]:
        assert old in good
        file.write_text(good.replace(old, new))
        refused(project, 2, *texts)
    file.write_text(good)
    corrected(project)


def test_a_pipeline_file_that_cannot_be_read(project: Any) -> None:
    (project.root / "mine.yaml").write_text(
        "extends: quickstart\nsteps:\n  extra: {step: mixx, from: {samples: generate}}\n"
    )
    refused(project, 2, "mine.yaml, step extra", "did you mean 'mix'?", command=("run", "--pipeline", "mine.yaml"))
    (project.root / "mine.yaml").write_text("extends: [\n")
    refused(project, 2, "mine.yaml:2", "not readable YAML", command=("run", "--pipeline", "mine.yaml"))


def test_a_pipeline_of_ones_own_needs_none_of_the_shipped_names(project: Any) -> None:
    (project.root / "mine.yaml").write_text(
        "steps:\n"
        "  leaves: {step: taxonomy, tree: $sdg_repo_url}\n"
        "  pages: {step: documents, sources: $sdg_repo_url, from: {taxonomy: leaves}}\n"
    )
    project.built("--pipeline", "mine.yaml")
    assert {record.step for record in project.store.records()} == {"leaves", "pages"}


# -- the teacher ---------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def test_a_teacher_that_cannot_be_reached(project: Any) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    teacher = ("--set", f"where.teacher.url={url}")
    refused(project, 4, "no server answers here", "ilab model serve", command=(*teacher, "run"))
    refused(project, 4, url.removesuffix("/v1"), command=(*teacher, "run", "-p", "sdg_teacher_model=m"))
    assert {record.type for record in project.store.records()} >= {"taxonomy", "documents", "items"}
    corrected(project)


def test_a_teacher_whose_answers_are_unusable_and_then_a_better_one(project: Any) -> None:
    (project.root / "key").write_text("hush-hush\n")
    small = ("-p", "sdg_scale_factor=1", "-p", "sdg_teacher_model=teacher")

    def at(teacher: Any, *command: str) -> tuple[str, ...]:
        settings = (f"where.teacher.url={teacher.url}", "where.teacher.api_key=file:key")
        return (*(part for setting in settings for part in ("--set", setting)), *command, *small)

    with serve(lambda body: "I would rather not.", key="hush-hush") as teacher:
        errors = refused(
            project, 4, "no sample of the leaf", "I would rather not", command=at(teacher, "run", "--until", "generate")
        )
        assert "good answers are kept" in errors
    with serve(key="hush-hush") as teacher:
        done = project.ilab(*at(teacher, "run", "--until", "generate", "--force", "generate"))
        assert done.returncode == 4, "at temperature and seed alike the answers are those of the journal"
        done = project.ilab(*at(teacher, "run", "--until", "generate"), "-p", "sdg_random_seed=1")
        assert done.returncode == 0, done.stderr
        counts = project.latest("generate").counts
        assert counts["calls"] == len(teacher.calls) > 0
        calls = len(teacher.calls)
        project.edit(f"taxonomy/{CALENDAR}/qna.yaml", "'[14] lesson with Marta'", "'At [14] lesson with Marta'")
        done = project.ilab(*at(teacher, "run", "--until", "generate"), "-p", "sdg_random_seed=1")
        assert done.returncode == 0, done.stderr
        again = project.latest("generate").counts
        assert again["calls"] == len(teacher.calls) - calls == counts["calls"] - again["calls_from_memo"]
        assert all("calendar" in str(body["messages"]) for body in teacher.calls[calls:]), "one leaf's calls alone"
    for file in (path for path in (project.root / ".ilab").rglob("*") if path.is_file()):
        assert b"hush-hush" not in file.read_bytes(), file


# -- the machine ---------------------------------------------------------------------------------------------------


def test_a_store_that_cannot_be_written(project: Any) -> None:
    (project.root / "file").write_text("")
    store = ("--store", "file/store")
    for command in (("run",), ("plan",), ("pipeline", "status"), ("pipeline", "gc")):
        refused(project, 3, "the store cannot be written", "file/store", "--store DIR", command=(*store, *command))
    refused(project, 3, "file", command=("plan", "--output", "file/plan.json"))
    corrected(project)


def test_standard_output_that_takes_no_more(built: Any) -> None:
    with Path("/dev/full").open("w") as full:
        done = built.ilab("run", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 3
    assert "error: the disk is full" in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


# A disk of its own, as small as ``$1``; the build must fail on it, and finish once it is larger.
DISK = """
mkdir -p disk && mount -t tmpfs -o size="$1" tmpfs disk || exit 77
"$2" -m ilab --store disk/store run
echo "exit $?" >&2
mount -o remount,size=64m disk
exec "$2" -m ilab --store disk/store --json pipeline status > before.json 2> /dev/null
"""
AGAIN = """
exec "$2" -m ilab --store disk/store run "${@:3}"
"""


def small_disk(project: Any, size: str, *again: str) -> subprocess.CompletedProcess[str]:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare(1) to mount a small disk with")
    script = DISK.replace("exec ", "", 1) + AGAIN
    done = subprocess.run(
        [unshare, "--user", "--map-root-user", "--mount", "bash", "-c", script, "bash", size, sys.executable, *again],
        cwd=project.root,
        env=project.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("this machine lets nobody mount a small disk")
    return done


def check_full(done: subprocess.CompletedProcess[str]) -> None:
    assert "exit 3" in done.stderr.splitlines()
    assert "the disk is full" in done.stderr or re.search(r"will write about .* are free", done.stderr)
    assert "ilab pipeline gc" in done.stderr and "run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("size", ["64k", "300k"])
def test_a_full_disk_while_reading_and_generating(project: Any, size: str) -> None:
    check_full(small_disk(project, size, "--until", "generate"))


@pytest.mark.long
@pytest.mark.parametrize("size", ["16k", "128k", "200k", "500k", "700k", "1200k", "3m", "5m", "8m", "11m"])
def test_a_full_disk_anywhere(project: Any, size: str) -> None:
    check_full(small_disk(project, size))


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (int(arguments[0]), resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
"""


@pytest.mark.parametrize("size", [4_000, 40_000])
def test_files_that_may_not_grow(project: Any, size: int) -> None:
    """A quota on the size of files: the same as a full disk in the middle of a write."""
    done = project.instrumented(*CORRECTED, before=LIMITED, given=(str(size),))
    assert done.returncode == 3, done.stderr
    assert "error: " in done.stderr and "Traceback" not in done.stderr
    assert str(project.root) in done.stderr.split("error: ")[1], done.stderr
    corrected(project)


def test_a_store_that_somebody_changed(built: Any) -> None:
    record = built.latest("generate")
    path = built.store.directory(record.type, record.key) / "record.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 99, "new": 1'))
    refused(built, 3, str(path), "remove the folder and run again")
    shutil.rmtree(path.parent)
    built.built()
    assert built.latest("generate").digest == record.digest


def test_another_process_is_building_the_same(project: Any) -> None:
    plan = project.plan()
    partial = project.store.directory("generate", plan["generate"]["key"] + ".partial")
    with project.store.writing("generate", plan["generate"]["key"]):
        refused(project, 3, f"process {os.getpid()}", str(partial), "wait for it", command=CORRECTED)
    corrected(project)
