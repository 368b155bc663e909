"""How close does generation come to a bare aiohttp loop, and to what the server allows?

    python benchmarks/teacher.py                    # the quick job, three times each
    python benchmarks/teacher.py --jobs B2 B3 B4    # a few minutes
    python benchmarks/teacher.py --faults           # 300 rows while 5 % of the calls fail in one way
    python benchmarks/teacher.py --write            # also put the figures into benchmarks/teacher.md

The job: n documents of 400 words; one call a document gives three questions, one call a question gives an answer, one
call an answer judges it: 7 n calls, 3 n rows. A local server (a process of its own, asyncio alone) answers each call
after a fixed time, or one drawn by its prompt. Ours runs the flow through engine, journal and client, its journal on
the disk; *bare* is the same job as a plain aiohttp loop without journal, retries, templates or records. Ideal is the
time that the server slept, divided by the calls in flight. Peers run where they are installed. Only the work is timed,
not the imports.

With drawn times (B4) some of the last calls are long ones, and nothing is left to do beside them: simulated without any
cost, 700 calls in the order of their coming take 1.27 x ideal in the median of 200 draws, and no better if the early
stages go first. B4-long has four times as many.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teacher_server import answer_text

ROOT = Path(__file__).resolve().parent.parent
SERVER = Path(__file__).with_name("teacher_server.py")
RESULT = Path(__file__).with_suffix(".md")
WORDS = ["kiln", "mill", "bridge", "quarry", "chapel", "orchard", "tower", "market", "gate", "burns", "carries", "old"]
ASK = "Write three questions about this text, each as [QUESTION]…[/QUESTION].\n\n{document}"
REPLY = "Answer the question from the text, as [ANSWER]…[/ANSWER].\n\n{document}\n\n{question}"
JUDGE = "Is the answer supported by the text? Say [VERDICT]YES[/VERDICT] or NO.\n\n{document}\n\n{question}\n\n{answer}"


@dataclass(frozen=True)
class Work:
    """One job. ``latency`` in seconds; ``sigma`` of its logarithm where it is drawn (its mean stays)."""

    documents: int
    in_flight: int
    latency: float
    sigma: float = 0.0

    @property
    def calls(self) -> int:
        return 7 * self.documents


JOBS = {
    "quick": Work(200, 50, 0.05),
    "B2": Work(1000, 200, 0.05),
    "B3-1000": Work(2000, 1000, 1.0),
    "B3-4000": Work(2000, 4000, 1.0),
    "B4": Work(100, 48, 0.5, 0.8),
    "B4-long": Work(400, 48, 0.5, 0.8),
    "B5": Work(100, 50, 0.05),
}


@dataclass(frozen=True)
class Measured:
    """``wall`` and ``cpu`` in seconds, ``memory`` the peak in MiB, ``reached`` the most in flight at the server.

    ``ideal`` are the seconds that the server slept, shared by the calls that may be in flight.
    """

    wall: float
    cpu: float
    memory: float
    rows: int
    calls: int
    reached: int
    ideal: float


# -- the clients -----------------------------------------------------------------------------------------------------


def documents(count: int) -> list[str]:
    draw = random.Random(7)
    return [f"Document {n}. " + " ".join(draw.choices(WORDS, k=400)) for n in range(count)]


async def by_loop(ask: Callable[[str], Awaitable[str]], work: Work) -> int:
    """The job without an engine, and without barriers. Returns the rows."""
    rows = 0

    async def one(document: str, question: str) -> None:
        nonlocal rows
        found = await ask(REPLY.format(document=document, question=question))
        answer = found.removeprefix("[ANSWER]").removesuffix("[/ANSWER]").strip()
        verdict = await ask(JUDGE.format(document=document, question=question, answer=answer))
        rows += "YES" in verdict

    async def through(document: str) -> None:
        found = await ask(ASK.format(document=document))
        questions = [part.split("[/QUESTION]")[0].strip() for part in found.split("[QUESTION]")[1:]]
        await asyncio.gather(*(one(document, question) for question in questions))

    await asyncio.gather(*(through(document) for document in documents(work.documents)))
    return rows


async def bare(url: str, work: Work) -> int:
    """aiohttp and nothing else."""
    import aiohttp

    gate = asyncio.Semaphore(work.in_flight)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(prompt: str) -> str:
            body = {"model": "teacher", "messages": [{"role": "user", "content": prompt}], "max_tokens": 100}
            async with gate, session.post(f"{url}/chat/completions", json=body) as response:
                return str((await response.json())["choices"][0]["message"]["content"])

        return await by_loop(ask, work)


async def litellm_loop(url: str, work: Work) -> int:
    """LiteLLM, the client of sdg_hub, without that engine."""
    import litellm

    gate = asyncio.Semaphore(work.in_flight)

    async def ask(prompt: str) -> str:
        async with gate:
            reply = await litellm.acompletion(
                model="openai/teacher",
                api_base=url,
                api_key="none",
                messages=[{"role": "user", "content": prompt}],
                max_tokens=100,
            )
        return str(reply.choices[0].message.content)

    return await by_loop(ask, work)


async def openai_loop(url: str, work: Work) -> int:
    """The openai package, the client of instructlab-sdg and distilabel, without their engines."""
    import openai

    gate = asyncio.Semaphore(work.in_flight)
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:

        async def ask(prompt: str) -> str:
            async with gate:
                reply = await client.chat.completions.create(
                    model="teacher", messages=[{"role": "user", "content": prompt}], max_tokens=100
                )
            return str(reply.choices[0].message.content)

        return await by_loop(ask, work)


async def ours(url: str, work: Work) -> int:
    """The job as a flow, with the journal on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        return await flow(url, work, Path(folder))


async def flow(url: str, work: Work, folder: Path, limit: float = 120.0) -> int:
    from ilab.config import Endpoint
    from ilab.core.events import Bus
    from ilab.core.memo import Memo
    from ilab.models.cached import Cached
    from ilab.models.openai import OpenAIModel
    from ilab.sdg.block import Context, Row
    from ilab.sdg.blocks.filter import Filter
    from ilab.sdg.blocks.llm import Llm
    from ilab.sdg.engine import Start, run_flow

    def jinja(text: str) -> str:
        return text.replace("{", "{{").replace("}", "}}")

    blocks = (
        Llm(name="ask", prompt=jinja(ASK), tags={"question": "QUESTION"}, temperature=0.7, max_tokens=100),
        Llm(name="reply", prompt=jinja(REPLY), tags={"answer": "ANSWER"}, temperature=0.7, max_tokens=100),
        Llm(name="judge", prompt=jinja(JUDGE), tags={"verdict": "VERDICT"}, max_tokens=100),
        Filter(name="supported", column="verdict", operation="eq", value="YES"),
    )
    model = OpenAIModel(Endpoint(url=url, in_flight=work.in_flight, timeout=limit))
    teacher = Cached(model, Memo(folder / "teacher"))
    context = Context(Memo(folder / "rows"), 42, 1, teacher, "teacher")
    starts = [
        Start(Row(f"knowledge/kilns#{number}", "knowledge/kilns", {"document": text}), blocks, "knowledge")
        for number, text in enumerate(documents(work.documents))
    ]
    result = await run_flow(
        starts, context, open_rows=4 * work.in_flight, emit=Bus().for_step("generate"), stopping=lambda: False
    )
    await teacher.close()
    return len(result.rows)


OURS = ("ilab.core.memo", "ilab.models.cached", "ilab.models.openai", "ilab.sdg.blocks.filter", "ilab.sdg.engine")
OURS += ("ilab.sdg.blocks.llm",)
CLIENTS: dict[str, tuple[Callable[[str, Work], Awaitable[int]], str]] = {
    "ours": (ours, "ilab"),
    "bare": (bare, "aiohttp"),
    "litellm": (litellm_loop, "litellm"),
    "openai": (openai_loop, "openai"),
}


def child(client: str, url: str, work: Work) -> None:
    """Run one client in this process and print what it took, imports not counted."""
    run, package = CLIENTS[client]
    importlib.import_module(package)
    for module in OURS if client == "ours" else ():
        importlib.import_module(module)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # which ours does for itself
    cpu, wall = time.process_time(), time.perf_counter()
    rows = asyncio.run(run(url, work))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(json.dumps({"wall": wall, "cpu": cpu, "memory": memory, "rows": rows}))


# -- the comparison --------------------------------------------------------------------------------------------------


@contextmanager
def server(work: Work, seed: int) -> Iterator[str]:
    command = [sys.executable, SERVER, str(work.latency), str(work.sigma), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


def measure(client: str, job: str, seed: int) -> Measured:
    """One run against a server of its own, which draws by ``seed``. A failure ends the benchmark."""
    work = JOBS[job]
    with server(work, seed) as url:
        done = subprocess.run(
            [sys.executable, __file__, "--client", client, job, url], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{client}, {job}:\n{done.stderr[-3000:]}")
        with urllib.request.urlopen(f"{url}/models") as answer:
            counted = json.load(answer)
    found = json.loads(done.stdout.splitlines()[-1])
    ideal = counted["slept"] / work.in_flight
    measured = Measured(**found, calls=counted["calls"], reached=counted["peak"], ideal=ideal)
    if (measured.rows, measured.calls) != (3 * work.documents, work.calls):
        sys.exit(f"{client}, {job}: {measured} is not the whole job of {work.calls} calls")
    return measured


def compare(job: str, times: int) -> list[str]:
    """Rows of the table: every installed client, in turns, the medians."""
    work = JOBS[job]
    clients = [name for name, (_, package) in CLIENTS.items() if importlib.util.find_spec(package)]
    runs: dict[str, list[Measured]] = {name: [] for name in clients}
    for turn in range(times):
        for name in clients:
            runs[name].append(measure(name, job, turn))
    wall = {name: statistics.median(run.wall for run in found) for name, found in runs.items()}
    ideal = {name: statistics.median(run.wall / run.ideal for run in found) for name, found in runs.items()}
    ratio = statistics.median(o.wall / b.wall for o, b in zip(runs["ours"], runs["bare"], strict=True))
    lines = []
    for name, found in runs.items():
        cpu = 1000 * statistics.median(run.cpu for run in found) / work.calls
        memory, reached = max(run.memory for run in found), max(run.reached for run in found)
        beside = f"{ratio if name == 'ours' else wall[name] / wall['bare']:.2f} ×"
        lines.append(
            f"| {job} | {name} | {wall[name]:.2f} s | {ideal[name]:.2f} × | {beside} "
            f"| {cpu:.2f} s | {reached} | {memory:.0f} MiB |"
        )
        print(lines[-1], flush=True)
    return lines


def under_faults(times: int) -> None:
    """300 rows through three stages while 5 % of the calls fail in one way, beside the same job without faults.

    The bound: twice the clean time, and for each stage a time-out (5 s) or what Retry-After says (1 or 2 s).
    """
    from ilab.testing.teacher import Faults, serve

    def script(body: dict[str, Any]) -> str:
        return answer_text(body["messages"][0]["content"])

    work, clean = JOBS["B5"], 0.0
    for kind, pause in FAULTS.items():
        walls, faulty = [], 0
        for turn in range(times):
            faults = Faults(share=0.05, kinds=(kind,), seed=turn) if kind != "none" else Faults()  # type: ignore[arg-type]
            with tempfile.TemporaryDirectory() as folder, serve(script, faults=faults, latency=0.05) as teacher:
                began = time.perf_counter()
                rows = asyncio.run(flow(teacher.url, work, Path(folder), limit=5.0))
                walls.append(time.perf_counter() - began)
                faulty += len(teacher.faulty)
        wall = statistics.median(walls)
        clean = clean or wall
        may_take = 2 * clean + 3 * pause
        print(f"| {kind} | {rows} | {faulty // times} | {wall:.2f} s | {may_take:.1f} s |", flush=True)


FAULTS = {"none": 0.0, "500": 0.0, "429": 0.0, "429-seconds": 1.0, "429-date": 2.0, "reset": 0.0, "silent": 5.0}
FAULTS |= {"malformed": 0.0, "empty": 0.0, "untagged": 0.0, "truncated": 0.0, "wrong-n": 0.0}
FAULT_HEAD = """\
| fault in 5 % of the calls | rows | faults | wall | may take |
| --- | ---: | ---: | ---: | ---: |"""
HEAD = """\
| job | client | wall | of ideal | of bare | CPU per 1,000 calls | in flight | peak memory |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--jobs", nargs="+", choices=JOBS, default=["quick"])
    arguments.add_argument("--times", type=int, default=3)
    arguments.add_argument("--write", action="store_true")
    arguments.add_argument("--faults", action="store_true", help="how long 300 rows take when calls fail, instead")
    arguments.add_argument("--client", nargs=3, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.client:
        name, job, url = given.client
        child(name, url, JOBS[job])
    elif given.faults:
        print(FAULT_HEAD)
        under_faults(given.times)
    else:
        print(HEAD)
        lines = [line for job in given.jobs for line in compare(job, given.times)]
        if given.write:
            title = TITLE.format(jobs=" ".join(given.jobs), times=given.times)
            RESULT.write_text(f"{title}\n\n{HEAD}\n" + "\n".join(lines) + "\n", encoding="utf-8")


TITLE = """\
# Generation beside a bare aiohttp loop

Written by `python benchmarks/teacher.py --jobs {jobs} --times {times} --write`; what the jobs are is said there.
Medians of runs in turns on one machine; the ratio to *bare* is the median of the ratios of neighbouring runs."""

if __name__ == "__main__":
    main()
