"""The command line itself: light to start, clear when it is misused, quiet when nobody listens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ilab.cli.app import NOUNS
from ilab.cli.compat import ALIASES

HEAVY = ("torch", "transformers", "tokenizers", "numpy", "pydantic", "aiohttp", "yaml", "jinja2", "rich")
COMMANDS = [
    ("completion",),
    ("config",),
    ("config", "edit"),
    ("config", "init"),
    ("config", "migrate"),
    ("config", "profiles"),
    ("config", "set"),
    ("config", "show"),
    ("config", "validate"),
    ("data",),
    ("data", "export"),
    ("data", "generate"),
    ("data", "list"),
    ("data", "mask"),
    ("data", "show"),
    ("data", "subset"),
    ("data", "why"),
    ("documents",),
    ("documents", "convert"),
    ("documents", "crawl"),
    ("doctor",),
    ("endpoint",),
    ("endpoint", "check"),
    ("evaluate",),
    ("evaluate", "calibrate-judge"),
    ("evaluate", "export-tasks"),
    ("evaluate", "validate-items"),
    ("flow",),
    ("flow", "check"),
    ("flow", "copy"),
    ("flow", "list"),
    ("flow", "run"),
    ("flow", "show"),
    ("model",),
    ("model", "chat"),
    ("model", "convert"),
    ("model", "evaluate"),
    ("model", "download"),
    ("model", "info"),
    ("model", "list"),
    ("model", "remove"),
    ("model", "serve"),
    ("model", "compare"),
    ("model", "test"),
    ("model", "train"),
    ("model", "upload"),
    ("pipeline",),
    ("pipeline", "cancel"),
    ("pipeline", "compile"),
    ("pipeline", "logs"),
    ("pipeline", "nightly"),
    ("pipeline", "schedule"),
    ("pipeline", "submit"),
    ("pipeline", "upload"),
    ("pipeline", "wait"),
    ("pipeline", "gc"),
    ("pipeline", "params"),
    ("pipeline", "plan"),
    ("pipeline", "run"),
    ("pipeline", "status"),
    ("process",),
    ("process", "attach"),
    ("process", "list"),
    ("process", "prune"),
    ("process", "remove"),
    ("process", "stop"),
    ("rag",),
    ("rag", "advise"),
    ("rag", "convert"),
    ("rag", "info"),
    ("rag", "ingest"),
    ("rag", "search"),
    ("package",),
    ("package", "build"),
    ("package", "push"),
    ("package", "show"),
    ("package", "verify"),
    ("registry", "alias"),
    ("registry", "history"),
    ("registry", "promote"),
    ("registry", "recall"),
    ("registry", "rollback"),
    ("registry",),
    ("registry", "list"),
    ("registry", "show"),
    ("registry", "sync"),
    ("report",),
    ("report", "diff"),
    ("report", "open"),
    ("report", "show"),
    ("why",),
    ("step",),
    ("step", "run"),
    ("system",),
    ("system", "df"),
    ("system", "info"),
    ("taxonomy",),
    ("taxonomy", "check"),
    ("taxonomy", "diff"),
    ("taxonomy", "draft"),
    ("taxonomy", "fix"),
    ("taxonomy", "init"),
    ("taxonomy", "new"),
    ("taxonomy", "review"),
    ("taxonomy", "tree"),
    ("taxonomy", "upgrade"),
]
PROGRAM = """
import resource, sys
sys.argv = ["ilab", *sys.argv[1:]]
from ilab.cli.app import run
try:
    run()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    loaded = [name for name in {heavy} if name in sys.modules]
    print(used.ru_utime + used.ru_stime, *loaded, file=sys.stderr)
"""


def ilab(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ilab", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_help_is_light() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(heavy=HEAVY), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    seconds, *loaded = done.stderr.split()
    assert loaded == []
    assert float(seconds) < 0.3
    for noun in NOUNS:
        assert f"  {noun} " in done.stdout
    for alias in ALIASES:
        assert f"  {alias} " in done.stdout


def test_the_list_of_commands_is_whole() -> None:
    import importlib

    import click

    found = [(noun,) for noun in NOUNS]
    for noun in NOUNS:
        group = importlib.import_module(f"ilab.cli.{noun}").group
        found += [(noun, verb) for verb in group.commands] if isinstance(group, click.Group) else []
    assert sorted(found) == sorted(COMMANDS), "name the new command here, so that its help is tested"


@pytest.mark.parametrize("command", [*COMMANDS, *((alias,) for alias in ALIASES)], ids=" ".join)
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    from click.testing import CliRunner

    from ilab.cli.app import main

    done = CliRunner().invoke(main, [*command, "--help"])
    assert done.exit_code == 0, done.output
    assert "Usage:" in done.output
    described = done.output.split("Usage:")[1].split("\n\n")[1]
    assert described.strip(), "every command says what it does"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("pipelin",), "Did you mean 'pipeline'?"),
        (("rnu",), "Did you mean 'run'?"),
        (("upload",), "Did you mean 'model upload'?"),
        (("frobnicate",), "There is no command 'frobnicate'."),
        (("pipeline", "rn"), "Did you mean 'run'?"),
        (("run", "--forc", "x"), "--force"),
        (("-C", "/nowhere", "plan"), "/nowhere"),
        (("step", "run", "--plan", "/nowhere", "--step", "x"), "/nowhere"),
        (("step", "run"), "--plan"),
    ],
)
def test_misspelt_commands_and_options(arguments: tuple[str, ...], text: str, tmp_path: Path) -> None:
    done = ilab(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_version() -> None:
    from ilab import __version__

    assert ilab("--version").stdout == f"ilab, version {__version__}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "ilab.yaml").write_text(
        "pipeline: quickstart\nparameters:\n  sdg_scale_factor: 7\nwhere:\n  threads: 2\n"
    )
    return tmp_path


def test_config_says_where_every_value_comes_from(project: Path) -> None:
    done = ilab(
        "--json", "--set", "where.jobs=1", "--store", str(project / "s"), "config", "show", "--origin", cwd=project
    )
    rows = json.loads(done.stdout)
    assert rows["where.threads"] == {"value": 2, "origin": "ilab.yaml:5"}
    assert rows["where.jobs"] == {"value": 1, "origin": "--set"}
    assert rows["where.store"] == {"value": str(project / "s"), "origin": "flag"}
    assert rows["where.device"] == {"value": "auto", "origin": "default"}
    assert rows["parameters.sdg_scale_factor"] == {"value": 7, "origin": "ilab.yaml:3"}
    text = ilab("config", "show", "--origin", cwd=project).stdout
    assert "where.threads: 2    # ilab.yaml:5\n" in text
    assert f"# store: {project.resolve() / '.ilab' / 'store'}" in text
    below = project / "a" / "b"
    below.mkdir(parents=True)
    assert ilab("config", "show", "--origin", cwd=below).stdout == text, "the nearest ilab.yaml above counts"
    assert ilab("-C", str(below), "config", "show", "--origin").stdout == text


def test_params_say_where_every_value_comes_from(project: Path) -> None:
    done = ilab("--json", "pipeline", "params", "-p", "train_seed=3", cwd=project)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert (rows["train_seed"]["value"], rows["train_seed"]["origin"]) == (3, "-p")
    assert (rows["sdg_scale_factor"]["value"], rows["sdg_scale_factor"]["origin"]) == (7, "ilab.yaml")
    assert (rows["sdg_base_model"]["value"], rows["sdg_base_model"]["origin"]) == ("tiny", "pipeline quickstart")
    assert rows["eval_metrics"]["origin"] == "default"
    assert all(row["help"] for row in rows.values())
    text = ilab("pipeline", "params", cwd=project).stdout
    assert all(name in text for name in rows)
    assert not (project / ".ilab").exists(), "asking makes nothing"


@pytest.mark.parametrize("command", [("pipeline", "params"), ("--json", "pipeline", "params"), ("config", "show")])
def test_a_reader_that_leaves_is_no_error(project: Path, command: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "ilab", *command], cwd=project, stdout=closed, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 0
    assert done.stderr == b""


def test_what_is_not_there_yet_says_how_to_make_it(project: Path) -> None:
    assert "ilab run" in ilab("registry", "list", cwd=project).stdout
    for command in (("report", "open"), ("model", "chat", "hello"), ("model", "serve")):
        done = ilab(*command, cwd=project)
        assert done.returncode == 2
        assert "error: " in done.stderr and "ilab run" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_bug_of_ours_keeps_its_traceback(project: Path) -> None:
    broken = "import ilab.config; ilab.config.load = None\n"
    program = f"{broken}import sys; sys.argv = ['ilab', 'config', 'show']; from ilab.cli.app import run; run()"
    done = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_verbose_shows_where_an_error_was_raised(tmp_path: Path) -> None:
    quiet, loud = ilab("report", "open", cwd=tmp_path), ilab("-v", "report", "open", cwd=tmp_path)
    assert quiet.returncode == loud.returncode == 2
    assert "Traceback" not in quiet.stderr
    assert "Traceback" in loud.stderr and quiet.stderr in loud.stderr
