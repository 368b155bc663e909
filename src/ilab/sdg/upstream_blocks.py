"""What each block type of instructlab-sdg becomes: a function from its configuration to blocks of ours.

A type's options are its function's reads of the configuration; what is read by none is an unknown field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

from ilab.errors import InputError
from ilab.plugins import nearest
from ilab.sdg.source import Location, Source

PARTS = ("system", "introduction", "principles", "examples", "generation")
OPERATIONS = ("eq", "ne", "gt", "ge", "lt", "le", "contains")
MAX_TOKENS = 4096  # where a block does not say


@dataclass(frozen=True)
class Spec:
    """A block of ours to be made: its type, name and fields, and which part of the file it comes from."""

    type: str
    name: str
    fields: Mapping[str, Any]
    at: Location

    def renamed(self, name: str) -> Spec:
        return replace(self, name=name)

    def made(self) -> set[str]:
        """The columns that it adds, as far as its fields say."""
        fields = self.fields
        if self.type in ("filter", "drop", "dedup", "repeat"):
            return set()
        if self.type in ("rename", "duplicate"):
            return set(fields["columns"].values())
        named = fields.get("delimiters") or (fields.get("columns") if "pattern" in fields else None) or ()
        return {*named, *(str(fields[name]) for name in ("output", "value", "variable") if fields.get(name))}


class Config:
    """The configuration of one upstream block. Every option that is asked for counts as used."""

    def __init__(self, name: str, options: Any, source: Source, at: Location, notes: list[str]) -> None:
        if not isinstance(options, dict):
            raise InputError("config is a mapping", where=source.at(at))
        self.name = name
        self.source = source
        self.at = at
        self.notes = notes
        self._options = dict(options)
        self._used: set[str] = set()

    def get(self, option: str, default: Any = None) -> Any:
        self._used.add(option)
        value = self._options.get(option)
        return default if value is None else value

    def need(self, option: str, type_: type) -> Any:
        """The option's value. Raises ``InputError`` where it is missing or of another type."""
        value = self.get(option)
        if value is None:
            raise InputError(f"block {self.name!r}: the field {option!r} is missing", where=self.source.at(self.at))
        if not isinstance(value, type_):
            raise self.wrong(option, f"{option} is a {type_.__name__}, not {str(value)[:60]!r}")
        return value

    def wrong(self, option: str, message: str, hint: str = "") -> InputError:
        where = self.source.at((*self.at, option))
        return InputError(f"block {self.name!r}: {message}", where=where, hint=hint)

    def note(self, text: str) -> None:
        self.notes.append(f"block {self.name!r}: {text}")

    def rest(self) -> dict[str, Any]:
        """The options that nobody has asked for, as those of an inner block."""
        rest = {option: value for option, value in self._options.items() if option not in self._used}
        self._used |= set(rest)
        return rest

    def check_all_used(self, type_: str) -> None:
        for option in self._options:
            if option not in self._used:
                raise self.wrong(
                    str(option), f"{type_} has no field {option!r}", nearest(str(option), sorted(self._used))
                )


def _llm(config: Config) -> list[Spec]:
    prompt = _prompt(config, config.need("config_path", str), "config_path")
    return _asking(config, "llm", {"prompt": prompt.text}, prompt)


def _conditional_llm(config: Config) -> list[Spec]:
    paths = config.need("config_paths", list)
    if not paths or not all(isinstance(entry, list) and len(entry) == 2 for entry in paths):
        raise config.wrong("config_paths", "config_paths is a list of pairs: a file and a value of the column")
    prompts = {str(key): _prompt(config, str(path), "config_paths") for path, key in paths}
    column = config.need("selector_column_name", str)
    first = next(iter(prompts.values()))
    if list(prompts) == ["All"]:
        return _asking(config, "llm", {"prompt": first.text}, first)
    fields = {"column": column, "prompts": {key: prompt.text for key, prompt in prompts.items()}}
    return _asking(config, "conditional-llm", fields, first)


def _logprobs(config: Config) -> list[Spec]:
    prompt = _prompt(config, config.need("config_path", str), "config_path")
    specs = _asking(config, "logprobs", {"prompt": prompt.text}, prompt)
    ask = specs[-1]
    columns = list(config.need("output_cols", list))
    kept = {
        name: value for name, value in ask.fields.items() if name not in ("delimiters", "pattern", "columns", "cleanup")
    }
    fields = {**kept, "output": f"{columns[0]}_text", "logprobs": columns[0]}
    return [*specs[:-1], replace(ask, fields=fields)]


def _messages(config: Config) -> list[Spec]:
    fields = {"messages": config.need("input_col", str), "output": config.need("output_col", str)}
    config.get("model_id")
    drawn = _drawn(config)
    count = drawn.pop("n")
    if count not in (1, "1"):
        fields["draws"] = count
    return [Spec("messages", config.name, {**fields, **drawn}, config.at)]


def _filter(config: Config) -> list[Spec]:
    operation = str(config.need("operation", str))
    if operation not in OPERATIONS:
        raise config.wrong("operation", f"there is no operation {operation!r}", nearest(operation, list(OPERATIONS)))
    value = config.get("filter_value")
    if value is None:
        raise config.wrong("filter_value", "the field 'filter_value' is missing")
    type_ = config.get("convert_dtype")
    if type_ not in (None, "float", "int", "bool"):
        raise config.wrong("convert_dtype", f"there is no type {type_!r}", "float, int or bool")
    values = [_converted(config, entry, type_) for entry in (value if isinstance(value, list) else [value])]
    fields: dict[str, Any] = {"column": config.need("filter_column", str), "operation": operation, "value": values[0]}
    if len(values) > 1:
        fields |= _any_of(config, operation, values)
    default = config.get("default_value")
    if type_ in ("float", "int"):
        fields["default"] = float(default or 0)
    return [Spec("filter", config.name, fields, config.at)]


def _any_of(config: Config, operation: str, values: list[Any]) -> dict[str, Any]:
    """A condition that holds where it holds for any of several values."""
    if operation == "eq":
        return {"operation": "in", "value": values}
    if operation == "contains":
        return {"value": values}
    if operation == "ne":
        raise config.wrong("filter_value", "every value differs from one of several: name one value")
    return {"value": min(values) if operation in ("gt", "ge") else max(values)}


def _converted(config: Config, value: Any, type_: str | None) -> Any:
    try:
        return float(value) if type_ in ("float", "int") else bool(value) if type_ == "bool" else value
    except (TypeError, ValueError) as error:
        raise config.wrong("filter_value", f"{value!r} is no {type_}") from error


def _iterate(config: Config) -> list[Spec]:
    times = config.need("num_iters", int)
    inner = config.need("block_type", str)
    if inner not in TYPES:
        raise config.wrong("block_type", f"there is no block type {inner!r}", nearest(inner, sorted(TYPES)))
    within = Config(config.name, config.rest(), config.source, config.at, config.notes)
    specs = TYPES[inner](within)
    within.check_all_used(inner)
    return [Spec("repeat", f"{config.name}-rounds", {"times": times}, config.at), *specs]


def _populate(config: Config) -> list[Spec]:
    after = config.get("post_fix", "")
    values = {}
    for path in config.need("config_paths", list):
        file = str(path).replace(".yaml", f"_{after}.yaml") if after else str(path)
        key = str(path).split("/")[-1].split(".")[0]
        values[key] = config.source.text(file, (*config.at, "config_paths"))
    return [Spec("populate", config.name, {"column": config.need("column_name", str), "values": values}, config.at)]


def _select(config: Config) -> list[Spec]:
    choices = {str(key): value for key, value in config.need("choice_map", dict).items()}
    fields = {"column": config.need("choice_col", str), "choices": choices, "output": config.need("output_col", str)}
    return [Spec("select", config.name, fields, config.at)]


def _combine(config: Config) -> list[Spec]:
    fields = {"columns": config.need("columns", list), "output": config.need("output_col", str)}
    return [Spec("combine", config.name, {**fields, "separator": config.get("separator", "\n\n")}, config.at)]


def _flatten(config: Config) -> list[Spec]:
    fields = {
        "columns": config.need("var_cols", list),
        "value": config.need("value_name", str),
        "variable": config.need("var_name", str),
    }
    return [Spec("flatten", config.name, fields, config.at)]


def _duplicate(config: Config) -> list[Spec]:
    return [Spec("duplicate", config.name, {"columns": config.need("columns_map", dict)}, config.at)]


def _rename(config: Config) -> list[Spec]:
    return [Spec("rename", config.name, {"columns": config.need("columns_map", dict)}, config.at)]


def _majority(config: Config) -> list[Spec]:
    return [Spec("majority", config.name, {"column": config.need("col_name", str)}, config.at)]


TYPES: dict[str, Callable[[Config], list[Spec]]] = {
    "CombineColumnsBlock": _combine,
    "ConditionalLLMBlock": _conditional_llm,
    "DuplicateColumnsBlock": _duplicate,
    "FilterByValueBlock": _filter,
    "FlattenColumnsBlock": _flatten,
    "IterBlock": _iterate,
    "LLMBlock": _llm,
    "LLMLogProbBlock": _logprobs,
    "LLMMessagesBlock": _messages,
    "RenameColumnsBlock": _rename,
    "SamplePopulatorBlock": _populate,
    "SelectorBlock": _select,
    "SetToMajorityValueBlock": _majority,
}


# -- prompts, answers and sampling ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prompt:
    """A prompt file: the one user message, and the delimiters of the answer's values."""

    text: str
    delimiters: tuple[tuple[str, str], ...]


def _prompt(config: Config, name: str, option: str) -> Prompt:
    at = (*config.at, option)
    text = config.source.text(name, at)
    file = config.source.file(name, at)
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise InputError(f"not YAML: {getattr(error, 'problem', error)}", where=f"{file}{line}") from error
    if not isinstance(content, dict):
        raise InputError(f"a prompt is a mapping with {', '.join(PARTS)}", where=str(file))
    parts = [str(content.get(part) or "") for part in PARTS]
    starts, ends = content.get("start_tags") or [], content.get("end_tags") or []
    if not isinstance(starts, list) or not isinstance(ends, list) or len(starts) != len(ends):
        raise InputError("start_tags and end_tags are two lists of the same length", where=str(file))
    pairs = tuple((str(start or ""), str(end or "")) for start, end in zip(starts, ends, strict=True))
    return Prompt(as_jinja("\n".join(parts)).strip(), pairs)


def as_jinja(text: str) -> str:
    """Prompts from before version 0.7 have variables in single braces; those with Jinja's own stay as they are."""
    if "{{" in text or "{%" in text:
        return text
    return re.sub(r"\{([A-Za-z_]\w*)\}", r"{{ \1 }}", text)


def _asking(config: Config, type_: str, fields: dict[str, Any], prompt: Prompt) -> list[Spec]:
    """The block that asks, after what its options mean for the rows: further draws, a column for the prompt."""
    columns = [str(column) for column in config.need("output_cols", list)]
    fields = {**fields, **_reading(config, columns, prompt)}
    for option in ("model_family", "model_prompt"):
        if config.get(option) is not None:
            config.note(f"{option} is left out: the server applies the model's own chat template")
    drawn = _drawn(config)
    before: list[Spec] = []
    count = drawn.pop("n")
    if count not in (1, "1"):
        before.append(Spec("repeat", f"{config.name}-draws", {"times": count}, config.at))
    batch = config.get("batch_kwargs", {})
    if isinstance(batch, dict) and batch.get("num_samples") is not None:
        samples = {"num_samples": str(batch["num_samples"])}
        before.append(Spec("expression", f"{config.name}-samples", {"columns": samples}, config.at))
    return [*before, Spec(type_, config.name, {**fields, **drawn}, config.at)]


def _reading(config: Config, columns: list[str], prompt: Prompt) -> dict[str, Any]:
    parser = config.get("parser_kwargs", {})
    if not isinstance(parser, dict):
        raise config.wrong("parser_kwargs", "parser_kwargs is a mapping")
    if parser.get("parser_name") == "custom":
        cleanup = parser.get("parser_cleanup_tags") or []
        return {"pattern": parser.get("parsing_pattern"), "columns": columns, "cleanup": cleanup}
    pairs = dict(zip(columns, prompt.delimiters, strict=False))
    if not pairs:
        raise config.wrong("output_cols", "the prompt file has no start_tags and end_tags for them")
    return {"delimiters": pairs}


def _drawn(config: Config) -> dict[str, Any]:
    """``gen_kwargs`` as fields of a block that asks, and ``n`` as a count."""
    given = config.get("gen_kwargs", {})
    if not isinstance(given, dict):
        raise config.wrong("gen_kwargs", "gen_kwargs is a mapping")
    given = dict(given)
    fields: dict[str, Any] = {"n": given.pop("n", 1), "temperature": float(given.pop("temperature", 0.0))}
    if fields["n"] == "scaled":
        fields["n"] = "scale"
    fields["max_tokens"] = int(given.pop("max_tokens", MAX_TOKENS))
    model = given.pop("model", None) or config.get("model_id")
    if model:
        fields["model"] = str(model)
    for name in ("seed", "top_p", "stop"):
        if given.get(name) is not None:
            value = given.pop(name)
            fields[name] = [value] if name == "stop" and isinstance(value, str) else value
    for name in given:
        config.note(f"gen_kwargs.{name} is left out: it is not part of every server's interface")
    return fields
