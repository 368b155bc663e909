"""Files of training data: whatever shape a row has, one ``RawSample``.

    messages     {"messages": [{"role", "content"}, …]}     InstructLab's (metadata, id, unmask), ours, OpenAI's (tools)
    dialogue     {"user", "assistant"[, "system"]}          InstructLab's first trainers
    completion   {"prompt", "completion"}                   texts, or lists of messages: the completion is trained
    instruction  {"instruction", "output"[, "input"]}       Alpaca, and ``generated_*.json``
    text         {"text"} or {"document"}                   continued pretraining, no template

A file is JSONL, one JSON array, or Parquet (with pyarrow); which, is read off its first bytes. A folder is all such
files in it, by name. Every row of a file has the shape of its first one: a mixed file is a mistake somewhere, and is
refused at the row that differs. Files are streamed (an array one element at a time).
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO, get_args

from ilab.data import TrainingRow, TrainOn, digest_text
from ilab.errors import InputError, SetupError
from ilab.models.rendering import FIELDS

SUFFIXES = (".jsonl", ".json", ".parquet")
# Shape -> keys that a row must have (any of the sets). In this order: node datasets have ``document`` beside messages.
SHAPES: dict[str, tuple[frozenset[str], ...]] = {
    "messages": (frozenset({"messages"}),),
    "dialogue": (frozenset({"user", "assistant"}),),
    "completion": (frozenset({"prompt", "completion"}),),
    "instruction": (frozenset({"instruction", "output"}),),
    "text": (frozenset({"text"}), frozenset({"document"})),
}
QUESTIONS = frozenset({"question", "response", "answer"})  # columns of unfinished rows, which no document has
EXPECTED = (
    "a row is {messages}, {user, assistant}, {prompt, completion}, {instruction, output}, {text} or {document}; "
    "all rows of a file alike, one JSON object in a line"
)
CALL = 'a call is {"type": "function", "function": {"name": "…", "arguments": {…}}}'
TOOLS = 'tools is a list of {"type": "function", "function": {"name": "…", "parameters": {…}}}'
MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}  # how files of other encodings begin
BLOCK = 1 << 20  # characters of a JSON array that are read at once
_BETWEEN = re.compile(r"[ \t\r\n,]*")  # elements of an array
_OLD_TURN = re.compile(r"^<\|(user|assistant|system)\|>[ \t]*\n?", re.MULTILINE)


@dataclass(frozen=True)
class RawSample:
    """One row as it was read: ``messages``, or ``text`` for continued pretraining.

    ``unmask``: all turns but the system's bear loss, whatever the run trains on; ``last``: the last turn alone does.
    ``where`` is file:line for errors, and no part of what the row is.
    """

    id: str
    messages: tuple[Mapping[str, Any], ...] = ()
    text: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    unmask: bool = False
    last: bool = False
    where: str = ""

    def content(self) -> list[Any]:
        """All that decides which tokens are trained, as JSON."""
        return [self.id, list(self.messages), self.text, list(self.tools), self.unmask, self.last]


@dataclass(frozen=True)
class RecordFiles:
    """The rows of some files, in order; may be gone through as often as one likes."""

    paths: tuple[Path, ...]

    @classmethod
    def find(cls, path: Path) -> RecordFiles:
        """One file, or all training files of a folder. Raises InputError where there are none."""
        if not path.is_dir():
            if not path.is_file():
                raise InputError("there is no such file of training data", where=str(path))
            return cls((path,))
        found = tuple(sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file()))
        if not found:
            raise InputError(
                "this folder holds no training data", where=str(path), hint="files: *.jsonl, *.json, *.parquet"
            )
        return cls(found)

    def __iter__(self) -> Iterator[RawSample]:
        for path in self.paths:
            yield from read_samples(path)


def of_row(row: TrainingRow) -> RawSample:
    """A row of a dataset."""
    messages = tuple(message.model_dump(exclude_none=True) for message in row.messages)
    return RawSample(row.id, messages, row.text, row.tools or (), row.train_on == "all", row.train_on == "last")


def read_samples(path: Path) -> Iterator[RawSample]:
    """The rows of one file. Raises InputError with file:line for a row that cannot be read or differs in shape."""
    shape = ""
    for where, row in _rows(path):
        found = _shape(row, where)
        if shape and found != shape:
            raise InputError(f"this row is {found}, the rows before it are {shape}", where=where, hint=EXPECTED)
        shape = found
        yield _sample(row, shape, where)


# -- files -----------------------------------------------------------------------------------------------------------


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with path.open("rb") as handle:
        head = handle.read(64)
    if head.startswith(b"PAR1"):
        rows = _parquet(path)
    elif head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        rows = _array(path)
    else:
        rows = _lines(path)
    for where, row in rows:
        if not isinstance(row, dict):
            raise InputError("this row is no JSON object", where=where, hint=EXPECTED)
        yield where, row


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            where = f"{path}:{number}"
            if text := _decode(line, where).lstrip("\ufeff").strip():
                try:
                    row = json.loads(text, parse_constant=_no_number)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"this line is not JSON: {error}", where=where, hint=EXPECTED) from error
                yield where, row


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"this is not UTF-8: {error.reason} at byte {error.start + 1}", where=where, hint=_other(data)
        ) from error


def _other(data: bytes) -> str:
    """What to do about bytes that are no UTF-8."""
    if data.startswith(b"\x1f\x8b"):
        return "the file is compressed: gunzip FILE"
    known = next((name for mark, name in MARKS.items() if data.startswith(mark)), "")
    return f"the file is in {known}: save it as UTF-8" if known else "save the file as UTF-8"


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _array(path: Path) -> Iterator[tuple[str, Any]]:
    """The elements of one JSON array, of which only one at a time is held."""
    try:
        with path.open(encoding="utf-8-sig") as handle:
            yield from _elements(handle, path)
    except UnicodeDecodeError as error:
        raise InputError(f"this is not UTF-8: {error.reason}", where=str(path), hint=_other(error.object)) from error


def _elements(handle: TextIO, path: Path) -> Iterator[tuple[str, Any]]:
    decoder = json.JSONDecoder(parse_constant=_no_number)
    text, line = handle.read(max(BLOCK, 64)), 1  # ``line`` is that of text[at]; the array begins within 64 bytes
    at = text.index("[") + 1
    line += text.count("\n", 0, at)
    while True:
        start = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]
        line += text.count("\n", at, start)
        at = start
        try:
            if text.startswith("]", at):
                return
            row, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            more = handle.read(max(BLOCK, len(text)))
            if not more:
                broken = line + text.count("\n", at, getattr(error, "pos", at))
                raise InputError(
                    f"this JSON array cannot be read: {error}", where=f"{path}:{broken}", hint=EXPECTED
                ) from error
            text, at = text[at:] + more, 0
            continue
        yield f"{path}:{line}", row
        line += text.count("\n", at, end)
        at = end


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        arrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise SetupError(
            "Parquet files are read with pyarrow, which is not installed",
            where=str(path),
            hint="pip install 'ilab[parquet]'",
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:row {number}", {name: value for name, value in row.items() if value is not None}
    except (arrow.ArrowException, OSError) as error:
        raise InputError(f"this Parquet file cannot be read: {error}", where=str(path)) from error


# -- rows ------------------------------------------------------------------------------------------------------------


def _shape(row: Mapping[str, Any], where: str) -> str:
    keys = row.keys()
    for shape, wanted in SHAPES.items():
        if any(one <= keys for one in wanted) and not (shape == "text" and keys & QUESTIONS):
            return shape
    raise InputError(
        f"this is no row of training data: its keys are {', '.join(sorted(keys)) or 'none'}", where=where, hint=EXPECTED
    )


def _sample(row: Mapping[str, Any], shape: str, where: str) -> RawSample:
    """One row of a known shape. Its id is the row's own, else the hash of what it holds."""
    unmask, last = _trained(row, where)
    messages: tuple[Mapping[str, Any], ...] = ()
    text = None
    if shape == "messages":
        messages, old = _messages(row["messages"], where)
        unmask = unmask or old
    elif shape == "dialogue":
        roles = [role for role in ("system", "user", "assistant") if row.get(role)]
        messages = tuple({"role": role, "content": _text(row[role], role, where)} for role in roles)
    elif shape == "completion":
        messages, last = _completion(row, where), True
    elif shape == "instruction":
        asked = [_text(row[name], name, where) for name in ("instruction", "input") if row.get(name)]
        messages = _pair("\n".join(asked), _text(row["output"], "output", where))
    else:
        name = "text" if "text" in row else "document"
        text = _text(row[name], name, where)
    tools = _tools(row.get("tools"), where)
    _check_text([messages, text, tools], where)
    plain = RawSample("", messages, text, tools, unmask, last)
    return replace(plain, id=_identity(row, plain), where=where)


def _trained(row: Mapping[str, Any], where: str) -> tuple[bool, bool]:
    """Whether all turns, or the last one alone, bear loss, as the row itself says."""
    unmask, chosen = row.get("unmask"), row.get("train_on")
    if unmask is not None and not isinstance(unmask, bool):
        raise InputError(
            f"unmask is true or false, not {unmask!r:.40}",
            where=where,
            hint="true: all turns but the system's bear loss",
        )
    if chosen is not None and chosen not in get_args(TrainOn):
        raise InputError(
            f"train_on is {', '.join(get_args(TrainOn))}, not {chosen!r:.40}",
            where=where,
            hint="or leave it out: then the run's own choice holds",
        )
    return bool(unmask) or chosen == "all", chosen == "last"


def _check_text(said: Any, where: str) -> None:
    """A lone half of a surrogate pair is valid in JSON's escapes, and in no text that could be written or encoded."""
    try:
        json.dumps(said, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        found = f"\\u{ord(error.object[error.start]):04x}"
        raise InputError(
            f"this row holds {found} alone, half of a character", where=where, hint="write the character itself"
        ) from error


def _identity(row: Mapping[str, Any], sample: RawSample) -> str:
    given = row.get("id")
    if isinstance(given, str | int) and not isinstance(given, bool) and given != "":
        return str(given)
    return f"row-{digest_text(json.dumps(sample.content(), sort_keys=True))[:16]}"


def _messages(value: Any, where: str) -> tuple[tuple[Mapping[str, Any], ...], bool]:
    """The turns, and whether one had the old role ``pretraining``, which means that all of them bear loss."""
    if not isinstance(value, list) or not value:
        raise InputError("`messages` is no list of messages", where=where, hint=EXPECTED)
    turns: list[Mapping[str, Any]] = []
    old = False
    for number, message in enumerate(value, 1):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InputError(f"message {number} has no role", where=where, hint='a message is {"role", "content"}')
        content = _content(message.get("content"), number, where)
        if message["role"] == "pretraining":
            old = True
            turns += _old_turns(content or "")
            continue
        turn = {name: found for name, found in message.items() if name in FIELDS and found not in (None, [])}
        if content is not None:
            turn["content"] = content
        if isinstance(message.get("thinking"), str):
            turn.setdefault("reasoning_content", message["thinking"])
        if not isinstance(turn.get("content", ""), str) or ("content" not in turn and not turn.get("tool_calls")):
            raise InputError(f"message {number} ({turn['role']}) has no content", where=where)
        if not isinstance(turn.get("reasoning_content", ""), str):
            raise InputError(f"message {number}: reasoning_content is no text", where=where)
        _check_calls(turn, number, where)
        turns.append(turn)
    return tuple(turns), old


def _check_calls(turn: Mapping[str, Any], number: int, where: str) -> None:
    calls = turn.get("tool_calls", [])
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise InputError(f"message {number}: tool_calls is no list of calls", where=where, hint=CALL)
    for call in calls:
        function = call.get("function", call)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise InputError(f"message {number}: a call names no function", where=where, hint=CALL)
    for name in ("tool_call_id", "name"):
        if not isinstance(turn.get(name, ""), str):
            raise InputError(f"message {number}: {name} is no text", where=where, hint=EXPECTED)


def _content(value: Any, number: int, where: str) -> str | None:
    """Text, or the text parts of OpenAI's list form."""
    if value is None or isinstance(value, str):
        return value
    texts = [part.get("text") for part in value if isinstance(part, dict)] if isinstance(value, list) else [None]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise InputError(f"message {number} holds something that is no text", where=where, hint="train on text alone")
    return "".join(str(text) for text in texts)


def _old_turns(text: str) -> list[Mapping[str, Any]]:
    """``<|user|>`` … ``<|assistant|>`` … of InstructLab before 0.8 as turns; text without them is the user's."""
    parts = _OLD_TURN.split(text)
    if len(parts) == 1 or parts[0].strip():
        return [{"role": "user", "content": text}]
    return [
        {"role": role, "content": content.strip("\n").removesuffix("<|endoftext|>")}
        for role, content in zip(parts[1::2], parts[2::2], strict=True)
    ]


def _completion(row: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], ...]:
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        messages, _ = _messages([*prompt, *completion], where)
        if len(completion) != 1 or messages[-1]["role"] != "assistant":
            raise InputError("a completion is one message of the assistant's", where=where)
        return messages
    return _pair(_text(prompt, "prompt", where), _text(completion, "completion", where))


def _pair(question: str, answer: str) -> tuple[Mapping[str, Any], ...]:
    return ({"role": "user", "content": question}, {"role": "assistant", "content": answer})


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise InputError(f"`{name}` is no text", where=where, hint=EXPECTED)
    return value


def _tools(value: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    """Descriptions of functions: a list, or the JSON text of one."""
    try:
        found = json.loads(value) if isinstance(value, str) and value else value or []
    except (ValueError, RecursionError) as error:
        raise InputError(f"`tools` is not JSON: {error}", where=where, hint=TOOLS) from error
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found):
        raise InputError("`tools` is no list of functions", where=where, hint=TOOLS)
    return tuple(found)
