"""No command answers a mistake of the user's with a traceback, whatever the mistake is.

The tree of commands is walked; every option and argument gets values of every wrong kind, through the program's own
entry point, in an empty folder and in a project. The same values in the same order each time.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import stat
import sys
import traceback
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest

from ilab.cli.app import NOUNS, load_noun, run
from ilab.cli.old_options import OldOptions

CODES = (0, 2, 3, 4, 5, 6, 130)  # 1 is a fault of ours
QNA = "version: 3\ncreated_by: t\ntask_description: d\nseed_examples:\n" + "".join(
    f"- {{question: What is {n}?, answer: It is {n}.}}\n" for n in range(5)
)
SOMETHING = "x"  # for arguments that are not the ones under test
FILES = (
    "folder",
    "empty.yaml",
    "binary.bin",
    "text.txt",
    "list.json",
    "deep.json",
    "rows.jsonl",
    "locked",
    "torn.gguf",
    "model",
)
BAD = (
    "", " ", "-1", "0", "9" * 40, "1e999", "nan", "null", "[", "{}", "a=b", "=", "a=[", "parameters.x=1", "%s%n", "*",
    "\x1b[31m", "\u202eübergröße🙂", "\udcff", "name" * 2000, "nowhere/none", "../../..", "/dev/null", "~nobody/x",
    *FILES, "project/ilab.yaml",
    "http://", "http://127.0.0.1:1/v1", "http://[", "ftp://x", "file:///nowhere", "file:nowhere", "env:NOPE_NOPE",
    "env:", "s3://", "oci://", "docker://x y", "OWNER/NAME", "a::b", "tiny", "auto",
)  # fmt: skip
# What keeps a command from work that no mistake is part of.
BASE = {
    "data generate": ("--dry-run",),
    "model train": ("--dry-run",),
    "documents crawl": ("--dry-run",),
}


def commands() -> Iterator[tuple[str, click.Command]]:
    for noun in NOUNS:
        command = load_noun(noun)
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield noun, command
        if isinstance(command, click.Group):
            yield from ((f"{noun} {verb}", one) for verb, one in command.commands.items())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of every wrong kind, a project in it, and nothing that reaches outside."""
    for name, value in {
        "HOME": str(tmp_path / "home"), "EDITOR": "true", "VISUAL": "true", "BROWSER": "true", "GIT_ALLOW_PROTOCOL": "file",
        "COLUMNS": "80", "NO_COLOR": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    for name in ("HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    for folder in ("home", "folder", "locked", "project/taxonomy/compositional_skills/a"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "empty.yaml").touch()
    (tmp_path / "binary.bin").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "text.txt").write_text("not what was meant\n\n- : [\n")
    (tmp_path / "list.json").write_text("[1, null]")
    (tmp_path / "deep.json").write_text("[" * 5000)
    (tmp_path / "torn.gguf").write_bytes(b"GGUF\x03\0\0\0" + b"\xff" * 20)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text('{"model_type": "llama", "architectures": 3}')
    (tmp_path / "model/tokenizer.json").write_text("{")
    (tmp_path / "model/model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{not json at all}")
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n[]\n{"messages": 3}\n')
    (tmp_path / "project/taxonomy/compositional_skills/a/qna.yaml").write_text(QNA)
    (tmp_path / "project/ilab.yaml").write_text("parameters: {sdg_repo_url: taxonomy, sdg_base_model: nowhere}\n")
    return tmp_path


def typed(path: str, command: click.Command, thorough: bool) -> Iterator[list[str]]:
    """Lines to type for ``command``: each option and argument with wrong values, the rest as short as it may be."""
    required = [one for one in command.params if one.required]
    start = [*path.split(), *BASE.get(path, ())]
    yield path.split() + [word for one in required for word in _given(one, SOMETHING)]
    for parameter in command.params:
        if isinstance(parameter, click.Option) and (parameter.is_flag or parameter.count):
            if not isinstance(getattr(parameter.callback, "__self__", None), OldOptions):
                rest = [word for one in required for word in _given(one, SOMETHING)]
                yield [*start, parameter.opts[0], *rest]
            continue
        old = isinstance(getattr(parameter.callback, "__self__", None), OldOptions)
        few = 1 if old else 6 if not thorough else len(BAD)
        first = zlib.crc32(f"{path} {parameter.name}".encode()) % len(BAD)
        for value in itertools.islice(itertools.cycle(BAD), first, first + few):
            rest = [word for one in required if one is not parameter for word in _given(one, SOMETHING)]
            yield [*start, *_given(parameter, value), *rest]


def _given(parameter: click.Parameter, value: str) -> list[str]:
    if isinstance(parameter, click.Argument):
        return [value]
    choices = getattr(parameter.type, "choices", None)
    return [parameter.opts[0], str(choices[0]) if choices and value == SOMETHING else value]


def answered(words: Sequence[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, str]:
    """The exit code of ``ilab WORDS`` and what it said; a traceback in place of a code."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["ilab", *words])
    files = {name: folder.parent / f"{folder.name}.{name}" for name in ("stdout", "stderr")}
    with contextlib.ExitStack() as open_, monkeypatch.context() as patched:
        for name, file in files.items():
            errors = "strict" if name == "stdout" else "backslashreplace"  # as Python's own
            stream = open_.enter_context(file.open("w", encoding="utf-8", errors=errors))
            patched.setattr(sys, name, stream)
        patched.setattr(sys, "stdin", io.StringIO())
        code: object = "no exit"
        try:
            run()
        except SystemExit as end:
            code = end.code
        except BaseException:  # whatever arrives here is what the test is about
            code = traceback.format_exc()
    return code, "".join(file.read_text(encoding="utf-8") for file in files.values())


@pytest.mark.parametrize("noun", sorted(NOUNS))
def test_no_mistake_ends_with_a_traceback(noun: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz(noun, here, monkeypatch, thorough=False)


@pytest.mark.long
@pytest.mark.parametrize("noun", sorted(NOUNS))
def test_no_mistake_of_any_kind_ends_with_a_traceback(noun: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz(noun, here, monkeypatch, thorough=True)


def fuzz(noun: str, here: Path, monkeypatch: pytest.MonkeyPatch, thorough: bool) -> None:
    faults = []
    known = os.environ.copy()
    for path, command in commands():
        if path.split()[0] != noun:
            continue
        for number, words in enumerate(typed(path, command, thorough)):
            folder = here / "project" if number % 2 else here
            names = [f"../{word}" if folder != here and word in FILES else word for word in words]
            code, said = answered(names, folder, monkeypatch)
            if code not in CODES or "Traceback" in said:
                faults.append(told(names, code, said))
            if not Path(os.devnull).is_char_device():  # as root one can rename a file over it
                put_back(os.devnull)
                faults.append(told(names, f"{os.devnull} was replaced", said))
            for name in {*os.environ} - {*known}:
                del os.environ[name]
    assert not faults, "\n\n".join(faults[:20]) + f"\n{len(faults)} in all"


def put_back(device: str) -> None:
    Path(device).unlink()
    os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    Path(device).chmod(0o666)  # mknod minds the umask


def told(words: Sequence[str], code: object, said: str) -> str:
    """A fault in few lines: what was typed, where in our code it ended, and with what."""
    lines = f"{code}\n{said[-400:]}".splitlines()
    ours = [line.strip() for line in lines if "src/ilab" in line or not line.startswith(" ")]
    return "\n  ".join(["ilab " + ascii(" ".join(words))[:300], *ours[-8:]])


def test_the_global_options_too(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = []
    for option, value in itertools.product(("--set", "--config", "--store", "-C"), BAD):
        for command in (["config", "show"], ["model", "list"], *([["doctor"]] if value == "list.json" else [])):
            words = [option, value, *command]
            code, said = answered(words, here, monkeypatch)
            if code not in CODES or "Traceback" in said:
                faults.append(told(words, code, said))
    assert not faults, "\n\n".join(faults[:20]) + f"\n{len(faults)} in all"
