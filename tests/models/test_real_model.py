"""The whole protocol with a real model: tiny, untrained, served over a real socket, drawing real tokens.

What it writes is noise, so nearly all of it is refused. That is the point: what must hold is that every call is counted
with its tokens, that every row ends as a sample or with a reason, and that the program says what is wrong.
"""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from ilab.config import Endpoint, Where
from ilab.core.events import Bus
from ilab.core.memo import Memo
from ilab.data import Message
from ilab.errors import ServiceError
from ilab.models.chat import Request
from ilab.models.local import LocalModel
from ilab.models.measure import PromptCounter
from ilab.sdg.block import Row
from ilab.sdg.engine import Result
from ilab.sdg.flow import load_file
from ilab.sdg.rows import RowJob, run_rows
from ilab.sdg.teachers import open_teacher
from ilab.serving.server import Server
from ilab.training.tiny import TinySpec, make_tiny

pytestmark = pytest.mark.long
NAME = "tiny"
LEAF = "knowledge/towers"
QNA = """\
version: 3
created_by: tests
domain: lamps
document_outline: About a lamp
document: {text: "The keepers light the lamp at dusk. The oil comes from the island in barrels each spring."}
seed_examples:
"""
SEED = """\
  - context: The lamp number {n} has a lens of glass.
    questions_and_answers:
      - {{question: "What has the lamp number {n}?", answer: "A lens of glass."}}
      - {{question: "What is the lens number {n} made of?", answer: "Of glass."}}
      - {{question: "Which lamp is it, {n} or another?", answer: "The lamp number {n}."}}
"""
WORDS = """
name: words
version: 1
branches:
  items:
    input: chunk
    blocks:
      - {type: repeat, times: scale}
      - type: llm
        name: write
        prompt: ask.txt
        temperature: 1.0
        max_tokens: 12
        pattern: '(\\S+)'
        columns: [answer]
        at_most: 1
      - {type: expression, name: ask, columns: {question: "What comes after {{ document }}?"}}
"""
LIKELY = """
name: likely
version: 1
branches:
  items:
    input: chunk
    blocks:
      - type: logprobs
        name: likely
        prompt: ask.txt
        temperature: 1.0
        max_tokens: 40
        stop: [e, " "]
        top: 3
        output: answer
"""


class WithoutLogprobs(Server):
    """The same server, as one that does not know of log probabilities."""

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        if json.loads(await request.read()).get("logprobs"):
            refusal = {"message": "logprobs are not told here", "type": "invalid_request_error", "param": "logprobs"}
            return web.json_response({"error": refusal}, status=400)
        return await super()._chat(request)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    folder = tmp_path_factory.mktemp("base") / "model"
    make_tiny(folder, TinySpec(context=1536))
    return LocalModel.load(folder, "cpu")


@contextmanager
def served(server: Server) -> Iterator[tuple[str, Counter[str]]]:
    """The URL, and how often each path was asked with which status."""
    counted: Counter[str] = Counter()
    application = server.application()

    async def count(request: web.Request, response: web.StreamResponse) -> None:
        counted[f"{request.path} {response.status}"] += 1

    application.on_response_prepare.append(count)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=5)

    async def start() -> int:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return int(runner.addresses[0][1])

    try:
        port = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
        yield f"http://127.0.0.1:{port}/v1", counted
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def ilab(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ilab", "-C", str(folder), "--store", str(folder / "store"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_the_check_tells_what_a_real_server_can_do(model: LocalModel, tmp_path: Path) -> None:
    with served(Server(model, NAME)) as (url, counted):
        done = ilab(tmp_path, "--json", "endpoint", "check", url, "--parallel", "2")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["model"], told["context_length"], told["limit"]) == (NAME, 1536, "max_tokens")
    able = {name: finding["able"] for name, finding in told["findings"].items()}
    assert able["chat"] and able["completions"] and able["seed"]
    assert able["n"] and able["logprobs"] and able["json_schema"]
    assert told["timing"]["failures"] == {}
    assert counted["/v1/models 200"] == 1
    with served(WithoutLogprobs(model, NAME)) as (url, _):
        done = ilab(tmp_path, "--json", "endpoint", "check", url, "--parallel", "1")
    finding = json.loads(done.stdout)["findings"]["logprobs"]
    assert not finding["able"] and "HTTP 400" in finding["said"]


def test_a_preview_says_why_nothing_of_it_can_be_used(model: LocalModel, tmp_path: Path) -> None:
    leaf = tmp_path / "taxonomy" / LEAF
    leaf.mkdir(parents=True)
    (leaf / "qna.yaml").write_text(QNA + "".join(SEED.format(n=n) for n in range(1, 6)))
    generate = ("data", "generate", "--taxonomy-path", "taxonomy", "--pipeline", "simple", "--model", NAME)
    with served(Server(model, NAME)) as (url, counted):
        unknown = ilab(tmp_path, *generate[:-1], "huge", "--endpoint-url", url, "--preview", "1")
        assert unknown.returncode == 4 and "it serves: tiny" in unknown.stderr
        assert not counted["/v1/chat/completions 200"]
        done = ilab(tmp_path, *generate, "--endpoint-url", url, "--preview", "1")
        asked = counted["/v1/chat/completions 200"]
        again = ilab(tmp_path, "--json", *generate, "--endpoint-url", url, "--preview", "1")
        assert counted["/v1/chat/completions 200"] == asked  # the answers are kept
    assert 1 <= asked <= 3
    assert done.returncode == 4
    assert "no sample was accepted: 1 rows were refused" in done.stderr
    assert f"{asked} calls" in done.stderr
    told = json.loads(again.stdout)
    assert told["counts"]["calls"] == asked and told["counts"]["tokens"] > 3 * asked
    [row] = map(json.loads, (Path(told["path"]) / "rejected.jsonl").read_text().splitlines())
    assert row["block"] == "write" and row["leaf"] == LEAF
    assert row["reason"].startswith(("the answer was cut off", "the answer cannot be read"))
    assert row["row"]["raw"]  # what the model really wrote


@pytest.fixture
def run(
    tmp_path: Path, make_rows: Callable[[], list[Row]], memos: list[Memo]
) -> Callable[[str, str], tuple[Result, dict[str, int]]]:
    def go(url: str, flow: str) -> tuple[Result, dict[str, int]]:
        (tmp_path / "flow.yml").write_text(flow)
        (tmp_path / "ask.txt").write_text("Go on: {{ document }}")
        loaded, emit = load_file(tmp_path / "flow.yml"), Bus().for_step("flow")
        where = Where(teacher=Endpoint(url=url, in_flight=4), cache=str(tmp_path / "cache"))

        def memo(name: str) -> Memo:
            memos.append(Memo(tmp_path / "memo" / name))
            return memos[-1]

        return run_rows(
            RowJob(
                flow=loaded,
                rows=make_rows(),
                scale_factor=4,
                seed=42,
                quality=0.7,
                memo=memo,
                emit=emit,
                stopping=lambda: False,
                teacher=open_teacher(where, [loaded], NAME, 4, emit),
                teacher_name=NAME,
                in_flight=4,
            )
        )

    return go


@pytest.fixture
def memos() -> Iterator[list[Memo]]:
    opened: list[Memo] = []
    yield opened
    for memo in opened:
        memo.close()


@pytest.fixture
def make_rows() -> Callable[[], list[Row]]:
    texts = ("the lamp is lit at dusk", "the oil comes in barrels", "the boat brings bread")
    return lambda: [Row(f"{LEAF}#{n}", LEAF, {"document": text}) for n, text in enumerate(texts)]


def test_a_flow_that_reads_anything_accepts_what_it_writes(
    model: LocalModel, run: Callable[[str, str], tuple[Result, dict[str, int]]]
) -> None:
    with served(Server(model, NAME)) as (url, counted):
        result, counts = run(url, WORDS)
        asked = counted["/v1/chat/completions 200"]
        again, free = run(url, WORDS)
        assert counted["/v1/chat/completions 200"] == asked
    assert counts["calls"] == asked >= 12
    assert len(result.rows) + len({entry.id for entry in result.rejected if entry.block == "write"}) >= 12
    assert len(result.rows) > 6
    for row in result.rows:
        assert row.columns["answer"] and row.trace.teacher == NAME
        assert row.trace.usage and row.trace.usage["prompt_tokens"] > 5 and row.trace.usage["completion_tokens"] > 0
    assert counts["tokens"] >= sum(sum((row.trace.usage or {}).values()) for row in result.rows)
    assert free["calls"] == 0 and [row.columns for row in again.rows] == [row.columns for row in result.rows]


def test_log_probabilities_are_those_of_the_tokens_that_were_drawn(
    model: LocalModel, run: Callable[[str, str], tuple[Result, dict[str, int]]]
) -> None:
    with served(Server(model, NAME)) as (url, _):
        result, _counts = run(url, LIKELY)
    assert result.rows, [entry.reason for entry in result.rejected]
    for row in result.rows:
        tokens = row.columns["logprobs"]
        said = "".join(token["token"] for token in tokens).strip()
        # The last token may go on behind the place where the answer stops; a token may hold a part of a letter.
        assert said.startswith(row.columns["answer"]) or "\ufffd" in said
        for token in tokens:
            assert 1 <= len(token["top"]) <= 3 and token["logprob"] <= max(token["top"].values()) + 1e-6 <= 1e-6
            assert sum(map(math.exp, token["top"].values())) <= 1 + 1e-6


def test_a_server_without_them_is_refused_before_the_first_answer(
    model: LocalModel, run: Callable[[str, str], tuple[Result, dict[str, int]]]
) -> None:
    said = r"flow\.yml:8: block 'likely' needs log probabilities: HTTP 400"
    with served(WithoutLogprobs(model, NAME)) as (url, counted), pytest.raises(ServiceError, match=said):
        run(url, LIKELY)
    assert counted["/v1/chat/completions 200"] == 1  # the probe's, of one token


def test_prompts_are_measured_with_the_real_tokenizer(model: LocalModel, tmp_path: Path) -> None:
    """The count that decides is never below the server's own, and close to it."""
    folder = tmp_path / "model"
    make_tiny(folder, TinySpec(context=1536))
    counter = PromptCounter(Endpoint(url="http://127.0.0.1:1/v1", tokenizer=str(folder)), "")
    for text in ("The keepers light the lamp at dusk.", "Größe, 東京 🙂", "x" * 300):
        turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
        counted = asyncio.run(counter.count(Request(NAME, tuple(Message(**turn) for turn in turns))))
        real = len(model.renderer.prompt_ids(turns))
        assert counted is not None and real <= counted <= real + 24
