"""Writes the reference pages from the code, so that they cannot say anything else.

    python docs/generate.py            writes docs/reference/*.md
    python docs/generate.py --check    changes nothing; exits 1 and names the pages that are not up to date

A page is a function from the code to text: classes in the order of their tables, fields with their defaults,
docstrings as they stand. Nothing depends on the machine, the width of a terminal or the time.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ilab import artifacts, config, errors
from ilab.actions import shipped_pipelines
from ilab.cli.app import NOUNS, main
from ilab.cli.compat import ALIASES
from ilab.core.step import Artifact, Step
from ilab.data import Record
from ilab.parameters import TABLE
from ilab.plugins import BUILT_IN, load
from ilab.sdg import flow
from ilab.sdg.block import Block, RuleBlock
from ilab.steps import STEPS
from ilab.training import metrics

REFERENCE = Path(__file__).parent / "reference"
SOURCES = {
    "artifacts": "src/ilab/artifacts.py",
    "cli": "src/ilab/cli/",
    "config": "src/ilab/config.py",
    "errors": "src/ilab/errors.py",
    "flows": "src/ilab/sdg/",
    "old-commands": "src/ilab/cli/upstream.yaml",
    "parameters": "src/ilab/parameters/",
    "steps": "src/ilab/steps/",
    "training-metrics": "src/ilab/training/metrics.py",
}


def pages() -> dict[str, str]:
    """File name to text of every reference page."""
    makers: dict[str, Callable[[], Iterator[str]]] = {
        "artifacts": artifacts_page,
        "cli": cli_page,
        "config": config_page,
        "errors": errors_page,
        "flows": flows_page,
        "old-commands": old_commands_page,
        "parameters": parameters_page,
        "steps": steps_page,
        "training-metrics": metrics_page,
    }
    return {
        f"{name}.md": "\n\n".join(
            [
                f"<!-- Made by docs/generate.py from {SOURCES[name]}; change it there, then type: make docs -->",
                *(part.strip("\n") for part in maker()),
            ]
        )
        + "\n"
        for name, maker in makers.items()
    }


# -- the pages ---------------------------------------------------------------------------------------------------


def cli_page() -> Iterator[str]:
    """Every command with its arguments and options."""
    yield "# The command line"
    yield "`ilab [GLOBAL OPTIONS] NOUN VERB [OPTIONS]`. Global options stand before the noun."
    yield "`-h` and `--help` work everywhere. Standard output carries results; everything else goes to standard error."
    yield "## Global options"
    yield _options(main, click.Context(main, info_name="ilab"))
    yield "## Aliases"
    yield _table(
        ("short", "stands for", ""),
        [(f"`ilab {name}`", f"`ilab {noun} {verb}`", text) for name, (noun, verb, text) in sorted(ALIASES.items())],
    )
    root = click.Context(main, info_name="ilab")
    for noun in sorted(NOUNS):
        group = main.get_command(root, noun)
        if group is None:
            raise TypeError(f"there is no command ilab {noun}")
        yield f"## ilab {noun}"
        yield f"{NOUNS[noun]}."
        context = click.Context(group, parent=root, info_name=noun)
        if not isinstance(group, click.Group):  # a command of its own, without verbs
            yield from _command(group, context)
            continue
        for verb in group.list_commands(context):
            command = group.get_command(context, verb)
            if command is not None:
                yield from _command(command, click.Context(command, parent=context, info_name=verb))


def old_commands_page() -> Iterator[str]:
    """What became of InstructLab's commands, options and settings."""
    sys.path.insert(0, str(Path(__file__).parent))
    maker: Iterator[str] = importlib.import_module("old_commands").page(_table)
    return maker


def parameters_page() -> Iterator[str]:
    """The parameter table, with what each shipped pipeline sets."""
    from ilab.core.pipeline import read_pipeline

    shipped = shipped_pipelines()
    own = {name: read_pipeline(path, shipped.__getitem__).parameters for name, path in shipped.items()}
    setting = [name for name, values in own.items() if values]
    yield "# Pipeline parameters"
    yield _prose(importlib.import_module("ilab.parameters"))
    yield "Later wins: default, pipeline file, `ilab.yaml`, `-p`. `ilab pipeline params` shows the values of a project."
    heads = ("parameter", "type", "default", *(f"in `{name}`" for name in setting), "valid", "kind", "what it does")
    rows = []
    for parameter in TABLE:
        given = [_code(own[name][parameter.name]) if parameter.name in own[name] else "" for name in setting]
        default = "" if parameter.default in (None, "") else _code(parameter.default)
        valid = f"`{parameter.valid}`" if parameter.valid else ""
        rows.append(
            (f"`{parameter.name}`", parameter.type.__name__, default, *given, valid, parameter.kind, parameter.help)
        )
    yield _table(heads, rows)


def steps_page() -> Iterator[str]:
    """Every step type: what it does, its fields, inputs and output."""
    yield "# Steps"
    yield _prose(importlib.import_module("ilab.core.step"))
    for name, step in STEPS.items():
        yield f"## {name}"
        yield _doc(step)
        facts = [f"makes: {step.makes().kind}", f"version: {step.version}"]
        if step.cheap:
            facts.append("reads files only, so `ilab plan` makes it")
        yield f"Class `{step.__name__}` · {' · '.join(facts)}"
        inputs = [_input_row(spec) for spec in step.inputs().values()]
        yield _table(("input", "takes", ""), inputs) if inputs else "No inputs."
        yield _fields(step, note=_resolved_by(step)) if step.model_fields else "No fields."


def artifacts_page() -> Iterator[str]:
    """The kinds of artifact and what is in their files."""
    yield "# Artifacts"
    yield _prose(artifacts)
    kinds = [
        cls
        for cls in vars(artifacts).values()
        if inspect.isclass(cls) and issubclass(cls, Artifact) and cls is not Artifact
    ]
    for cls in kinds:
        yield f"## {cls.kind}"
        makers = [name for name, step in STEPS.items() if step.makes() is cls]
        if vars(cls).get("__doc__"):
            yield _doc(cls)
        yield f"Class `{cls.__name__}`. Made by the steps: {', '.join(f'`{name}`' for name in makers)}."
    yield "## Records"
    yield _prose(importlib.import_module("ilab.data"))
    records = [
        cls
        for cls in vars(importlib.import_module("ilab.data")).values()
        if inspect.isclass(cls) and issubclass(cls, Record) and cls is not Record
    ]
    for record in records:
        yield f"### {record.__name__}"
        if vars(record).get("__doc__"):
            yield _doc(record)
        yield _fields(record)


def errors_page() -> Iterator[str]:
    """The tree of errors and every exit code."""
    yield "# Errors and exit codes"
    yield _prose(errors)
    yield "## Exit codes"
    rows = [("0", "", "done, or nothing to do")]
    rows.append(("1", "", "a fault in ilab itself: it ends with a traceback; please report it"))
    rows.append(("2", "", "a command line that cannot be read: an unknown command or option"))
    base = errors.IlabError
    classes = [cls for cls in vars(errors).values() if inspect.isclass(cls) and issubclass(cls, base) and cls != base]
    tree = sorted(classes, key=lambda cls: cls.exit_code)
    rows += [(str(cls.exit_code), f"`{cls.__name__}`", _doc(cls)) for cls in tree]
    rows.append(("130, 143", "`Stopped`", "stopped by Ctrl-C or by a termination signal, with the work saved"))
    yield _table(("code", "class", "meaning"), rows)


def flows_page() -> Iterator[str]:
    """The blocks and the shipped flows."""
    yield "# Flows and blocks"
    yield _prose(flow)
    yield "## Blocks"
    yield _doc(Block)
    yield _fields(Block)
    for name in sorted(BUILT_IN["ilab.blocks"]):
        block: type[Block] = load("ilab.blocks", name)
        yield f"### {name}"
        yield _doc(block) if vars(block).get("__doc__") else _prose(importlib.import_module(block.__module__))
        work = "asks the teacher" if block.calls_teacher else "works by rule" if issubclass(block, RuleBlock) else ""
        facts = [f"Class `{block.__name__}`", f"version: {block.version}", *([work] if work else [])]
        yield " · ".join(facts)
        if set(block.model_fields) - set(Block.model_fields):
            yield _fields(block, without=Block)
    yield "## Shipped flows"
    for folder in sorted(path for path in flow.SHIPPED.iterdir() if path.is_dir()):
        yield f"### {folder.name}"
        for file in sorted(folder.glob("*.yaml")):
            yield f"`{file.name}`"
            yield f"```yaml\n{file.read_text(encoding='utf-8').strip()}\n```"


def config_page() -> Iterator[str]:
    """Every setting of ``ilab.yaml``."""
    yield "# Configuration: ilab.yaml"
    yield _prose(config)
    yield "`ilab config show --origin` shows every value and where it comes from."
    yield _table(("setting", "type", "default", "what it is"), list(_settings(config.Config, "")))


def metrics_page() -> Iterator[str]:
    """Every key of ``metrics.jsonl``."""
    yield "# Metrics of a training: metrics.jsonl"
    yield _prose(metrics)
    yield (
        "*Content* depends on what is trained on alone, up to rounding; it is part of the artifact. *Measured* is what"
        "\ndiffers from run to run, or with devices and layout; it stays in the work folder. Keys are never renamed."
    )
    yield (
        "Other programs get the same numbers: `where.train.report_to` names TensorBoard, MLflow or W&B, and\n"
        "`where.train.prometheus_file` the file that a node exporter collects (`ilab_training_<key>`)."
    )
    rows = []
    for column in metrics.SCHEMA:
        kind = ("measured" if column.measured else "content") + (", not in every line" if column.optional else "")
        rows.append((f"`{column.name}`", column.kind.__name__, column.unit, kind, column.meaning))
    yield _table(("key", "type", "unit", "kind", "what it is"), rows)


# -- their parts -------------------------------------------------------------------------------------------------


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"### {context.command_path}"
    yield f"```text\n{command.get_usage(_wide(context)).removeprefix('Usage: ')}\n```"
    yield _markdown(inspect.cleandoc(command.help or ""))
    if command.epilog:
        lines = command.epilog.removeprefix("\b\nExamples:\n")
        yield f"```text\n{inspect.cleandoc(lines)}\n```"
    options = _options(command, context)
    if options:
        yield options


def _wide(context: click.Context) -> click.Context:
    """``context`` with a usage line that is never wrapped."""
    context.terminal_width = context.max_content_width = 1000
    return context


def _options(command: click.Command, context: click.Context) -> str:
    rows = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and "--help" not in parameter.opts:
            rows.append((f"`{record[0]}`", _markdown(record[1])))
    return _table(("option", ""), rows) if rows else ""


def _input_row(spec: Any) -> tuple[str, str, str]:
    kinds = " or ".join(kind.kind for kind in spec.accepts)
    many = f"any number of {kinds}s, by name" if spec.many else kinds
    return f"`{spec.name}`", many, "optional" if spec.optional else ""


def _resolved_by(step: type[Step]) -> dict[str, str]:
    return {
        name: f"the pipeline gives a locator; the resolver `{mark.by}` makes its digest"
        for name, mark in step.resolvable().items()
    }


def _fields(
    cls: type[BaseModel], *, without: type[BaseModel] | None = None, note: Mapping[str, str] | None = None
) -> str:
    rows = []
    for name, info in cls.model_fields.items():
        if without is None or name not in without.model_fields:
            said = info.description or (note or {}).get(name, "")
            rows.append((f"`{name}`", f"`{_type(info.annotation)}`", _default(info), _markdown(said)))
    if not any(row[3] for row in rows):
        return _table(("field", "type", "default"), [row[:3] for row in rows])
    return _table(("field", "type", "default", ""), rows)


def _settings(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, ...]]:
    for name, info in section.model_fields.items():
        path = f"{prefix}.{name}".lstrip(".")
        inner = next((part for part in (info.annotation, *get_args(info.annotation)) if _is_model(part)), None)
        if inner is None or info.description:
            yield f"`{path}`", f"`{_type(info.annotation)}`", _default(info), _markdown(info.description or "")
        if inner is not None:
            yield from _settings(inner, path)


def _is_model(part: Any) -> bool:
    return inspect.isclass(part) and issubclass(part, BaseModel)


def _type(annotation: Any) -> str:
    """A type as a person writes it: ``list[str]``, ``a | b`` for alternatives, the words of a Literal."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " | ".join(str(word) for word in arguments)
    if origin in (Union, UnionType):
        return " | ".join("none" if part is NoneType else _type(part) for part in arguments)
    if origin is not None:
        inside = ", ".join("…" if part is Ellipsis else _type(part) for part in arguments)
        return f"{origin.__name__}[{inside}]"
    return getattr(annotation, "__name__", str(annotation))


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    return "none" if value is None else _code(value)


def _code(value: Any) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (list, tuple)):
        return f"`{', '.join(map(str, value))}`" if value else "empty"
    if isinstance(value, (str, Mapping)) and not value:
        return "empty"
    return f"`{value}`"


def _prose(module: Any) -> str:
    """A module's docstring as Markdown."""
    return _markdown(inspect.cleandoc(module.__doc__ or ""))


def _doc(cls: type) -> str:
    """A class's own docstring as Markdown."""
    return _markdown(inspect.cleandoc(vars(cls).get("__doc__") or ""))


def _markdown(text: str) -> str:
    """Docstring marks as Markdown: ``code`` in single ticks, roles as plain code."""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text)
    return text.replace("``", "`")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(heads), "|" + " --- |" * len(heads), *(line(row) for row in rows)])


def run(arguments: Sequence[str]) -> int:
    """Write the pages, or compare with ``--check``. Returns the exit code."""
    made = pages()
    stale = [name for name, text in made.items() if _read(REFERENCE / name) != text]
    stray = sorted(path.name for path in REFERENCE.glob("*.md") if path.name not in made)
    if "--check" in arguments:
        for name in stale:
            sys.stderr.write(f"docs/reference/{name} is not up to date; type: make docs\n")
        for name in stray:
            sys.stderr.write(f"docs/reference/{name} is made by nothing; remove it\n")
        return 1 if stale or stray else 0
    REFERENCE.mkdir(exist_ok=True)
    for name in stale:
        (REFERENCE / name).write_text(made[name], encoding="utf-8")
        sys.stdout.write(f"docs/reference/{name}\n")
    return 0


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
