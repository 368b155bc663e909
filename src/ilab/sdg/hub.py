"""Flows in sdg_hub's form: translated into our blocks when they are loaded, as those of instructlab-sdg are.

    metadata: {name: …, dataset_requirements: {required_columns: […]}}
    blocks:
      - block_type: PromptBuilderBlock
        block_config: {block_name: ask, input_cols: [document], output_cols: prompt, prompt_config_path: ask.yaml}
      - block_type: LLMChatBlock
        …

A prompt, the call, its extraction and its parsing are four blocks there. Where nothing else reads what lies between,
call, extraction and parsing become one block, which asks again when it cannot read an answer. Agents, tools and Python
code are refused. A column that a call fills holds its text, not the server's whole response.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import yaml

from ilab.data import Kind
from ilab.errors import InputError
from ilab.plugins import nearest
from ilab.sdg.source import Location, Source
from ilab.sdg.upstream import Translated, build, example_columns, finished, plain_name
from ilab.sdg.upstream_blocks import MAX_TOKENS, Config, Spec, as_jinja

HOW = (
    "async_mode",
    "timeout",
    "num_retries",
    "drop_params",
    "api_base",
    "api_key",
)  # how to call: not the flow's matter
REFUSED = ("AgentBlock", "AgentResponseExtractorBlock", "MCPAgentBlock", "PythonInterpreterBlock")


def is_hub(content: Mapping[str, Any]) -> bool:
    """Whether a flow file has sdg_hub's form."""
    return "blocks" in content and "metadata" in content and "branches" not in content


def translate_hub(source: Source, kind: Kind | None) -> Translated:
    """What the file ``source`` says, in our blocks; see :func:`ilab.sdg.upstream.translate`."""
    made = Translated(_version(source.content))
    notes: list[str] = []
    if source.content.get("parameters"):
        notes.append("parameters are left out: set the fields of the blocks")
    specs: list[Spec] = []
    blocks = source.content["blocks"]
    for index, block in enumerate(blocks if isinstance(blocks, list) else []):
        try:
            specs += _block(block, source, ("blocks", index), notes)
        except InputError as error:
            made.errors.append(error)
    if not specs and not made.errors:
        made.errors.append(InputError("blocks is a list of blocks", where=source.at(("blocks",))))
    made.notes = tuple(dict.fromkeys(notes))
    if made.errors:
        return made
    chain = _fused(specs)
    made.branches["flow"] = []
    for spec in [*example_columns(chain, source), *finished(chain)] if kind else chain:
        build(spec, source, made, "flow")
    return made


def _version(content: Mapping[str, Any]) -> int:
    metadata = content.get("metadata")
    match = re.match(r"\d+", str(metadata.get("version"))) if isinstance(metadata, dict) else None
    return int(match.group()) if match and int(match.group()) > 0 else 1


def _block(block: Any, source: Source, at: Location, notes: list[str]) -> list[Spec]:
    type_ = block.get("block_type") if isinstance(block, dict) else None
    options = block.get("block_config") if isinstance(block, dict) else None
    if not isinstance(type_, str) or not isinstance(options, dict) or not isinstance(options.get("block_name"), str):
        raise InputError("a block has block_type and block_config with block_name", where=source.at(at))
    if type_ in REFUSED:
        raise InputError(f"{type_} runs code or tools: that is not taken over", where=source.at((*at, "block_type")))
    if type_ not in TYPES:
        hint = nearest(type_, sorted(TYPES))
        raise InputError(f"there is no block type {type_!r}", where=source.at((*at, "block_type")), hint=hint)
    config = Config(plain_name(options["block_name"]), options, source, (*at, "block_config"), notes)
    config.get("block_name")
    specs = TYPES[type_](config)
    config.check_all_used(type_)
    return specs


def _fused(specs: list[Spec]) -> list[Spec]:
    """Calls that read their own answer, where the columns between are read by nobody else."""
    fused: list[Spec] = []
    at = 0
    while at < len(specs):
        call, extract, parse = (*specs[at : at + 3], None, None, None)[:3]
        if call and extract and parse and _belong(call, extract, parse, specs[at + 3 :]):
            reading = {name: value for name, value in parse.fields.items() if name != "column"}
            kept = {name: value for name, value in call.fields.items() if name != "output"}
            fused.append(replace(call, fields={**kept, **reading}))
            at += 3
        else:
            fused.append(specs[at])
            at += 1
    return fused


def _belong(call: Spec, extract: Spec, parse: Spec, later: list[Spec]) -> bool:
    if (call.type, extract.type, parse.type) != ("messages", "duplicate", "parse") or "draws" in call.fields:
        return False
    [(raw, text)] = extract.fields["columns"].items()
    read_later = {word for spec in later for word in re.findall(r"\w+", str(spec.fields))}
    return raw == call.fields["output"] and text == parse.fields["column"] and not {raw, text} & read_later


# -- one function for each block type -------------------------------------------------------------------------------


def _names(config: Config, option: str, count: int | None = None) -> list[str]:
    """The columns that an option names: a name or a list of names. Raises ``InputError`` for another number of them."""
    value = config.get(option)
    names = [value] if isinstance(value, str) else value
    if (
        not isinstance(names, list)
        or not all(isinstance(name, str) for name in names)
        or len(names) != (count or len(names))
    ):
        raise config.wrong(option, f"{option} names {count or 'some'} column{'s' * (count != 1)}")
    return names


def _prompt(config: Config) -> list[Spec]:
    columns = config.get("input_cols", [])
    names = {str(name): column for column, name in columns.items()} if isinstance(columns, dict) else None
    [output] = _names(config, "output_cols", 1)
    path = config.need("prompt_config_path", str)
    at = (*config.at, "prompt_config_path")
    if config.get("format_as_messages", True) is not True:
        raise config.wrong("format_as_messages", "only messages are sent: leave it out")
    text, file = config.source.text(path, at), config.source.file(path, at)
    try:
        turns = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"not YAML: {getattr(error, 'problem', error)}", where=str(file)) from error
    if not isinstance(turns, list) or not all(
        isinstance(turn, dict) and {"role", "content"} <= set(turn) for turn in turns
    ):
        raise InputError("a prompt is a list of messages with role and content", where=str(file))
    said = [{"role": turn["role"], "content": as_jinja(str(turn["content"]))} for turn in turns]
    fields: dict[str, Any] = {"turns": said, "output": output}
    return [Spec("conversation", config.name, {**fields, **({"names": names} if names else {})}, config.at)]


def _chat(config: Config) -> list[Spec]:
    [messages] = _names(config, "input_cols", 1)
    [output] = _names(config, "output_cols", 1)
    fields: dict[str, Any] = {"messages": messages, "output": output, "temperature": config.get("temperature", 0.0)}
    fields["max_tokens"] = config.get("max_tokens") or config.get("max_completion_tokens") or MAX_TOKENS
    config.get("max_completion_tokens")
    for name in ("top_p", "stop", "seed"):
        value = config.get(name)
        if value is not None:
            fields[name] = [value] if name == "stop" and isinstance(value, str) else value
    if config.get("model"):
        fields["model"] = str(config.get("model")).removeprefix("openai/").removeprefix("hosted_vllm/")
    for name in HOW:
        config.get(name)
    count = config.get("n", 1)
    for name in config.rest():
        config.note(f"{name} is left out: it is not part of every server's interface")
    before = [Spec("repeat", f"{config.name}-draws", {"times": count}, config.at)] if count not in (1, "1") else []
    return [*before, Spec("messages", config.name, fields, config.at)]


def _extract(config: Config) -> list[Spec]:
    [raw] = _names(config, "input_cols", 1)
    if config.get("extract_content", True) is not True:
        raise config.wrong("extract_content", "only the content of an answer is kept")
    for option in ("extract_reasoning_content", "extract_tool_calls"):
        if config.get(option):
            config.note(f"{option} is left out: only the content of an answer is kept")
    if config.get("expand_lists", True) is not True:
        config.note("expand_lists is left out: every draw is a row of its own")
    config.get("output_cols")
    prefix = config.get("field_prefix") or f"{config.get('block_name')}_"
    return [Spec("duplicate", config.name, {"columns": {raw: f"{prefix}content"}}, config.at)]


def _tags(config: Config) -> list[Spec]:
    starts, ends = ([*_as_list(config.get(option))] for option in ("start_tags", "end_tags"))
    columns = _names(config, "output_cols")
    if not len(starts) == len(ends) == len(columns):
        raise config.wrong("start_tags", "output_cols, start_tags and end_tags are lists of the same length")
    config.get("save_reasoning_content")
    delimiters = {column: (str(s or ""), str(e or "")) for column, s, e in zip(columns, starts, ends, strict=True)}
    return [_parse(config, {"delimiters": delimiters})]


def _regex(config: Config) -> list[Spec]:
    columns = _names(config, "output_cols")
    return [_parse(config, {"pattern": config.need("parsing_pattern", str), "columns": columns})]


def _json(config: Config) -> list[Spec]:
    prefix = config.get("field_prefix", "")
    columns = _names(config, "output_cols")
    for option in ("fix_trailing_commas", "extract_embedded"):  # forgiven and found in any case
        config.get(option)
    parse = _parse(config, {"keys": {f"{prefix}{column}": column for column in columns}})
    if not config.get("drop_input"):
        return [parse]
    return [parse, Spec("drop", f"{config.name}-drop", {"columns": [parse.fields["column"]]}, config.at)]


def _parse(config: Config, reading: dict[str, Any]) -> Spec:
    [column] = _names(config, "input_cols", 1)
    cleanup = config.get("parser_cleanup_tags")
    return Spec(
        "parse", config.name, {"column": column, **reading, **({"cleanup": cleanup} if cleanup else {})}, config.at
    )


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if isinstance(value, str) else []


def _filter(config: Config) -> list[Spec]:
    column = _names(config, "input_cols")[0]
    operation, value = config.need("operation", str), config.get("filter_value")
    values = value if isinstance(value, list) else [value]
    config.get("output_cols")
    if config.get("convert_dtype") in ("float", "int"):
        values = [float(each) for each in values if each is not None]
    elif config.get("convert_dtype") is not None:
        raise config.wrong("convert_dtype", "float or int")
    values = [each for each in values if each is not None]  # a row without a value goes in any case
    if not values:
        raise config.wrong("filter_value", "a value is missing")
    fields: dict[str, Any] = {"column": column, "operation": operation, "value": values[0]}
    if operation == "in" or (operation == "eq" and len(values) > 1):
        fields |= {"operation": "in", "value": values}
    elif operation == "contains":
        fields["value"] = values
    elif len(values) > 1:
        raise config.wrong("filter_value", f"{operation} takes a single value")
    return [Spec("filter", config.name, fields, config.at)]


def _melt(config: Config) -> list[Spec]:
    value, variable = _names(config, "output_cols", 2)
    fields = {"columns": _names(config, "input_cols"), "value": value, "variable": variable}
    return [Spec("flatten", config.name, fields, config.at)]


def _mapped(type_: str) -> Callable[[Config], list[Spec]]:
    def spec(config: Config) -> list[Spec]:
        config.get("output_cols")
        return [Spec(type_, config.name, {"columns": config.need("input_cols", dict)}, config.at)]

    return spec


def _concat(config: Config) -> list[Spec]:
    [output] = _names(config, "output_cols", 1)
    fields = {"columns": _names(config, "input_cols"), "output": output, "separator": config.get("separator", "\n\n")}
    return [Spec("combine", config.name, fields, config.at)]


def _structure(config: Config) -> list[Spec]:
    [output] = _names(config, "output_cols", 1)
    config.get("ensure_json_serializable")
    members = ", ".join(f"'{column}': {column}" for column in _names(config, "input_cols"))
    indent = "(indent=2)" if config.get("pretty_print") else ""
    return [
        Spec("expression", config.name, {"columns": {output: f"{{{{ {{{members}}} | tojson{indent} }}}}"}}, config.at)
    ]


def _multiply(config: Config) -> list[Spec]:
    for option in ("input_cols", "output_cols", "shuffle", "random_seed"):  # rows keep the order of the input
        config.get(option)
    if config.get("add_index_column"):
        raise config.wrong("add_index_column", "a row's number is not kept: its id tells it apart")
    config.get("index_column_name")
    return [Spec("repeat", config.name, {"times": config.need("num_samples", int)}, config.at)]


def _sample(config: Config) -> list[Spec]:
    [column], [output] = _names(config, "input_cols", 1), _names(config, "output_cols", 1)
    fields = {
        "column": column,
        "output": output,
        "count": config.get("num_samples", 5),
        "seed": config.get("random_seed"),
    }
    return [Spec("sample", config.name, fields, config.at)]


def _select(config: Config) -> list[Spec]:
    config.get("input_cols")
    choices = {str(key): column for key, column in config.need("choice_map", dict).items()}
    chosen, outputs = _names(config, "choice_cols"), _names(config, "output_cols")
    if len(chosen) != len(outputs):
        raise config.wrong("choice_cols", "choice_cols and output_cols are lists of the same length")
    return [
        Spec("select", f"{config.name}-{output}", {"column": column, "choices": choices, "output": output}, config.at)
        for column, output in zip(chosen, outputs, strict=True)
    ]


def _uniform(config: Config) -> list[Spec]:
    config.get("output_cols")
    if config.get("reduction_strategy", "mode") != "mode":
        raise config.wrong("reduction_strategy", "only mode, the most frequent value, is taken over")
    return [Spec("majority", config.name, {"column": _names(config, "input_cols", 1)[0]}, config.at)]


TYPES: dict[str, Callable[[Config], list[Spec]]] = {
    "ColumnValueFilterBlock": _filter,
    "DuplicateColumnsBlock": _mapped("duplicate"),
    "IndexBasedMapperBlock": _select,
    "JSONParserBlock": _json,
    "JSONStructureBlock": _structure,
    "LLMChatBlock": _chat,
    "LLMResponseExtractorBlock": _extract,
    "MeltColumnsBlock": _melt,
    "PromptBuilderBlock": _prompt,
    "RegexParserBlock": _regex,
    "RenameColumnsBlock": _mapped("rename"),
    "RowMultiplierBlock": _multiply,
    "SamplerBlock": _sample,
    "TagParserBlock": _tags,
    "TextConcatBlock": _concat,
    "UniformColumnValueSetter": _uniform,
}
