"""What every command has: examples that can be typed, values that a shell can complete, `--debug-params`."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from click.types import StringParamType

from ilab.cli.app import NOUNS, hoisted, load_noun, main
from ilab.cli.compat import ALIASES
from ilab.cli.examples import EXAMPLES
from ilab.cli.offers import OFFERS, Offered
from ilab.processes import Processes

HEAVY = ("torch", "transformers", "tokenizers", "numpy", "aiohttp", "jinja2", "rich", "scipy")
PROGRAM = """
import sys
from ilab.cli.app import run
try:
    run()
finally:
    print(*[name for name in {heavy} if name in sys.modules], file=sys.stderr)
"""


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by what is typed for it."""
    for noun in NOUNS:
        command = load_noun(noun)
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield noun, command
        if isinstance(command, click.Group):
            yield from ((f"{noun} {verb}", one) for verb, one in command.commands.items())


def test_every_command_has_examples_and_every_example_a_command() -> None:
    names = [name for name, _ in commands()]
    assert sorted(EXAMPLES) == sorted(names)
    shown = CliRunner().invoke(main, ["model", "upload", "--help"]).output
    assert "\n  Examples:\n    ilab model upload --model DIR --destination OWNER/NAME\n" in shown


@pytest.mark.parametrize(("name", "line"), [(name, line) for name, lines in EXAMPLES.items() for line in lines])
def test_an_example_is_understood(name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("plan.json", "train.jsonl", "questions.jsonl", "rows.jsonl"):  # where they must be there
        (tmp_path / file).touch()
    words = shlex.split(line.partition(" > ")[0])
    assert words[0] == "ilab"
    context = click.Context(main, info_name="ilab")
    rest = hoisted(words[1:])
    rest = [word for word in rest if word not in ("--json",)]
    noun, verb, _ = ALIASES.get(rest[0], (rest[0], "", ""))
    command: click.Command = load_noun(noun)
    typed, rest = [noun], rest[1:]
    if verb or (isinstance(command, click.Group) and rest and rest[0] in command.commands):
        assert isinstance(command, click.Group)
        typed.append(verb or rest.pop(0))
        command = command.commands[typed[-1]]
    assert " ".join(typed) == name, "it stands in the help of the command that it calls"
    command.make_context(name, rest, parent=context).close()  # raises what the command line would


def test_offers_are_of_options_that_are_there() -> None:
    known = {
        (path, name): parameter
        for path, command in [("", main), *commands()]
        for parameter in command.params
        for name in parameter.opts
    }
    for (path, name), offer in OFFERS.items():
        found = [one for (other, option), one in known.items() if option == name and path in ("*", other)]
        assert found, (path, name)
        if path == "":
            assert all(isinstance(one.type, StringParamType) for one in found), (path, name)
        else:
            assert any(isinstance(one.type, Offered) and one.type.offer is offer for one in found), (path, name)


def pressed(line: str, cwd: Path) -> tuple[list[str], list[str]]:
    """What is offered at the end of ``line``, and the heavy modules that were loaded for it."""
    words = f"{line}|".split()
    words[-1] = words[-1].removesuffix("|")
    environment = {
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
        "_ILAB_COMPLETE": "bash_complete",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(heavy=HEAVY)],
        cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [line.removeprefix("plain,") for line in done.stdout.split()], done.stderr.split()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a leaf, a downloaded model and a background process that has ended."""
    leaf = tmp_path / "taxonomy/knowledge/geology/marble"
    leaf.mkdir(parents=True)
    (leaf / "qna.yaml").write_text("version: 3\n")
    (tmp_path / "ilab.yaml").write_text("parameters: {sdg_repo_url: taxonomy}\n")
    models = Path(os.environ["XDG_CACHE_HOME"]) / "instructlab/models"
    models.mkdir(parents=True)
    (models / "small.gguf").write_bytes(b"GGUF" + bytes(60))
    return tmp_path


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ilab proc", ["process"]),
        ("ilab process at", ["attach"]),
        ("ilab ser", ["serve"]),
        ("ilab model up", ["upload"]),
        ("ilab model upload --dest", ["--dest-type", "--destination"]),
        ("ilab model evaluate --benchmark mt", ["mt_bench", "mt_bench_branch"]),
        ("ilab model remove sm", ["small.gguf"]),
        ("ilab model info el", ["file,el"]),
        ("ilab data show --leaf ", ["knowledge/geology/marble"]),
        ("ilab run -p sdg_sc", ["sdg_scale_factor="]),
        ("ilab run --set where.thr", ["where.threads="]),
        ("ilab --set where.thr", ["where.threads="]),
        ("ilab --json config show --key where.thr", ["where.threads"]),
        ("ilab config init --profile cpu-", ["cpu-32"]),
        ("ilab data generate --pipeline ex", ["extractive"]),
        ("ilab process attach zz", []),
    ],
)
def test_a_press_of_tab(line: str, offered: list[str], project: Path) -> None:
    assert pressed(line, project) == (offered, [])


def test_processes_are_offered_the_newest_first(project: Path) -> None:
    processes = Processes()
    python = (sys.executable, "-c")
    started = [processes.start([f"print({number})"], python) for number in range(2)]
    for one in started:
        list(processes.follow(one))
    assert pressed("ilab process remove ", project)[0] == [one.id for one in reversed(started)]
    assert pressed(f"ilab process remove {started[0].id[:5]}", project)[0] == [started[0].id]


def test_a_broken_project_offers_nothing_and_says_nothing(project: Path) -> None:
    (project / "ilab.yaml").write_text("parameters: [\n")
    assert pressed("ilab data show --leaf ", project) == ([], [])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_the_shell(shell: str) -> None:
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert f"_ILAB_COMPLETE={shell}_complete" in done.stdout
    assert done.stderr.startswith("It belongs into ~/")
    assert CliRunner().invoke(main, ["completion"], env={"SHELL": f"/usr/bin/{shell}"}).stdout == done.stdout


def test_bash_takes_the_script(project: Path) -> None:
    """The script itself, in a real bash: what stands in COMPREPLY after a press of TAB."""
    script = CliRunner().invoke(main, ["completion", "bash"]).stdout
    tool = project / "bin"
    tool.mkdir()
    (tool / "ilab").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ilab "$@"\n')
    (tool / "ilab").chmod(0o755)
    typed = 'compopt() { :; }; COMP_WORDS=(ilab model remove sm); COMP_CWORD=3; _ilab_completion ilab; echo "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script}\n{typed}"],
        cwd=project, env={**os.environ, "PATH": f"{tool}:{os.environ['PATH']}"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "small.gguf\n"
    assert "nospace" in script


def test_no_name_and_no_shell_is_a_question() -> None:
    done = CliRunner().invoke(main, ["completion"], env={"SHELL": "/bin/tcsh"})
    assert done.exit_code == 2
    assert "One of bash, zsh, fish" in done.stderr


def test_every_command_shows_what_it_understood() -> None:
    for name, command in commands():
        flags = [one for one in command.params if one.opts[0] in ("--debug-params", "--debug-params-json")]
        assert len(flags) == 2 and all(isinstance(one, click.Option) and one.hidden for one in flags), name


def test_what_a_command_understood() -> None:
    words = ["data", "generate", "--sdg-scale-factor", "3", "--api-key", "s3cr3t"]
    told = json.loads(CliRunner().invoke(main, [*words, "--debug-params-json"]).stdout)["params"]
    assert told["sdg_scale_factor"] == [3, "int", "commandline"]
    assert told["taxonomy_path"] == [None, "NoneType", "default"]
    assert told["api_key"][0] == "***"
    shown = CliRunner().invoke(main, ["data", "generate", "--api-key", "env:KEY", "--debug-params"])
    assert shown.exit_code == 0
    assert "api_key: 'env:KEY' (str, commandline)" in shown.stdout.splitlines()
    for words in (["evaluate", "--debug-params"], ["doctor", "--debug-params"], ["sysinfo", "--debug-params"]):
        assert CliRunner().invoke(main, words).exit_code == 0


def test_no_help_loads_anything_heavy() -> None:
    """One process for all of them, so it is cheap; the first that loads something is named."""
    program = f"""
import sys
from click.testing import CliRunner
from ilab.cli.app import NOUNS, load_noun, main
from ilab.cli.compat import ALIASES
names = [[noun] for noun in (*NOUNS, *ALIASES)]
names += [[noun, verb] for noun in NOUNS for verb in getattr(load_noun(noun), "commands", ())]
for name in names:
    assert CliRunner().invoke(main, [*name, "--help"]).exit_code == 0, name
    loaded = [one for one in {(*HEAVY, "pydantic", "yaml")} if one in sys.modules]
    assert not loaded, (name, loaded)
print(len(names))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 90
