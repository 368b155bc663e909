"""Generation beside its peers, beside a bare aiohttp loop, and beside what the server allows, all in one run.

    python benchmarks/sdg.py                          # 7,000 calls, 200 at once: ours, bare, the installed peers
    python benchmarks/sdg.py --install                # makes the environments of the peers first (2.5 GB, minutes)
    python benchmarks/sdg.py --peers sdg-hub          # of the peers this one alone; `--peers none` for none
    python benchmarks/sdg.py --jobs many slow uneven  # others than the first; `--jobs all`
    python benchmarks/sdg.py --faults                 # also: 300 rows while 5 % of the calls fail in one way
    python benchmarks/sdg.py --write                  # also put the figures into benchmarks/sdg.md

Every client does the same job (benchmarks/peers/job.py) in a process and an environment of its own, against the same
server (benchmarks/peers/server.py, asyncio alone, a process of its own). They take turns; ratios are of neighbouring
runs, and the table has medians. *Ideal* is the time that the server slept, divided by the calls that may be in flight.
*CPU* is that of the client and all processes it starts, imports of the first one not counted; *memory* the peak of its
own, or of all its processes together. How many calls were in flight is the server's view.

With drawn times the last calls may be long ones, with nothing left to do beside them: with 700 calls that alone costs
1.27 x ideal in the median of 200 draws simulated without any cost, and no other order of the calls does better.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PEERS_FOLDER = Path(__file__).with_name("peers")
sys.path.insert(0, str(PEERS_FOLDER))

from job import Work, answer_text  # noqa: E402
from venvs import LIBRARIES, PEERS, install, installed, python_of, versions  # noqa: E402

RESULT = Path(__file__).with_suffix(".md")
JOBS = {
    "B2": (Work(1000, 200, 0.05), "7,000 calls of 50 ms, 200 at once"),
    "quick": (Work(200, 50, 0.05), "1,400 calls of 50 ms, 50 at once"),
    "thousand": (Work(2000, 1000, 1.0), "14,000 calls of 1 s, 1,000 at once"),
    "many": (Work(2000, 4000, 1.0), "14,000 calls of 1 s, 4,000 at once"),
    "slow": (Work(1000, 200, 0.05, slow=0.1), "7,000 calls of 50 ms, one in ten of 500 ms, 200 at once"),
    "uneven": (Work(400, 48, 0.5, sigma=0.8), "2,800 calls of 0.5 s in the mean (log-normal, sigma 0.8), 48 at once"),
    "B4": (Work(100, 48, 0.5, sigma=0.8), "700 calls of 0.5 s in the mean (log-normal, sigma 0.8), 48 at once"),
}
OWN = {"ours": "ours", "bare": "bare"}  # client to module, in this very environment
COMMAND = "command"  # `ilab data generate`, which does more than the job
PATIENCE = 600.0  # seconds for one run of one client


@dataclass(frozen=True)
class Measured:
    """``wall`` and ``cpu`` in seconds, ``memory`` the peak in MiB, ``reached`` the most in flight at the server.

    ``ideal`` are the seconds that the server slept, shared by the calls that may be in flight; ``server`` is the
    processor time that the server itself took.
    """

    wall: float
    cpu: float
    memory: float
    rows: int
    calls: int
    reached: int
    ideal: float
    server: float


# -- one run ---------------------------------------------------------------------------------------------------------


@contextmanager
def server(work: Work, seed: int) -> Iterator[str]:
    command = [sys.executable, PEERS_FOLDER / "server.py", *map(str, (work.latency, work.sigma, work.slow, seed))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


def measure(client: str, work: Work, seed: int) -> Measured | str:
    """One run against a server of its own, which draws by ``seed``; or why there is no result."""
    module, python = interpreter(client)
    command = [str(python), str(PEERS_FOLDER / "child.py"), module]
    with server(work, seed) as url, tempfile.TemporaryFile("w+") as said:
        given = [url, json.dumps(asdict(work))]
        process = subprocess.Popen([*command, *given], stdout=subprocess.PIPE, stderr=said, text=True)
        with watched(process.pid) as peak:
            try:
                out, _ = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                end(process)
                return f"no result within {PATIENCE:.0f} s"
        if process.returncode:
            said.seek(0)
            print(said.read()[-3000:], file=sys.stderr)
            return f"it failed with exit code {process.returncode}"
        with urllib.request.urlopen(f"{url}/models") as answer:
            counted = json.load(answer)
    found = json.loads(out.splitlines()[-1])
    whole = found.pop("whole")
    found["memory"] = max(found["memory"], peak[0])
    ideal = counted["slept"] / work.in_flight
    measured = Measured(**found, calls=counted["calls"], reached=counted["peak"], ideal=ideal, server=counted["cpu"])
    if [measured.rows, measured.calls] != whole:
        return f"{measured.rows} rows of {whole[0]} in {measured.calls} calls of {whole[1]}"
    return measured


def interpreter(client: str) -> tuple[str, Path]:
    """Module and interpreter of a client."""
    if client in OWN or client == COMMAND:
        return OWN.get(client, client), Path(sys.executable)
    if client in LIBRARIES:
        module, peer = LIBRARIES[client]
        return module, python_of(peer)
    return PEERS[client].module, python_of(client)


def end(process: subprocess.Popen[str]) -> None:
    """Kill a client and the processes it started, by their ids."""
    for pid in (*family(process.pid), process.pid):
        subprocess.run(["kill", "-9", str(pid)], check=False, capture_output=True)
    process.wait()


@contextmanager
def watched(pid: int) -> Iterator[list[float]]:
    """The peak of the memory (PSS, in MiB) of ``pid`` and its descendants together, looked at twice a second."""
    peak, done = [0.0], threading.Event()

    def look() -> None:
        while not done.wait(0.5):
            children = family(pid)
            if children:  # a process alone knows its own peak better
                peak[0] = max(peak[0], sum(map(memory, (pid, *children))))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def family(pid: int) -> list[int]:
    """The descendants of ``pid`` (on Linux; none elsewhere)."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:  # it ended meanwhile
            continue
        found += [one for child in children for one in (child, *family(child))]
    return found


def memory(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


# -- the comparison --------------------------------------------------------------------------------------------------


def compare(job: str, clients: dict[str, int]) -> list[str]:
    """Rows of the table: the clients in turns, each so many times; the medians."""
    work, _ = JOBS[job]
    runs: dict[str, list[Measured]] = {name: [] for name in clients}
    failures: dict[str, str] = {}
    for turn in range(max(clients.values())):
        for name in (name for name, times in clients.items() if turn < times and name not in failures):
            found = measure(name, work, turn)
            print(f"  {job} {turn + 1} {name}: {found}", file=sys.stderr, flush=True)
            if isinstance(found, Measured):
                runs[name].append(found)
            else:
                failures[name] = found
    lines = []
    for name in clients:
        lines.append(failed(job, name, failures[name]) if name in failures else line(job, name, runs))
        print(lines[-1], flush=True)
    return lines


def line(job: str, name: str, runs: dict[str, list[Measured]]) -> str:
    found, bare = runs[name], runs.get("bare", [])
    wall = statistics.median(run.wall for run in found)
    ideal = statistics.median(run.wall / run.ideal for run in found)
    cpu = 1000 * statistics.median(run.cpu / run.calls for run in found)
    beside = "–"
    if bare:
        beside = f"{statistics.median(own.wall / other.wall for own, other in zip(found, bare, strict=False)):.2f} ×"
    return (
        f"| {job} | {name} | {wall:.2f} s | {ideal:.2f} × | {beside} | {cpu:.2f} s "
        f"| {max(run.reached for run in found):,} | {max(run.memory for run in found):.0f} MiB |"
    )


def failed(job: str, name: str, reason: str) -> str:
    return f"| {job} | {name} | {reason} | | | | | |"


# -- faults ----------------------------------------------------------------------------------------------------------

FAULTS = {"none": 0.0, "500": 0.0, "429": 0.0, "429-seconds": 1.0, "429-date": 2.0, "reset": 0.0, "silent": 5.0}
FAULTS |= {"malformed": 0.0, "empty": 0.0, "untagged": 0.0, "truncated": 0.0, "wrong-n": 0.0}
FAULTY = Work(100, 50, 0.05)


def under_faults(times: int) -> list[str]:
    """300 rows through three stages while 5 % of the calls fail in one way, beside the same job without faults.

    The bound: twice the clean time, and for each stage a time-out (5 s) or what Retry-After says (1 or 2 s).
    """
    from ours import made_job

    from ilab.sdg.generate import generate
    from ilab.testing.teacher import Faults, serve

    def script(body: dict[str, Any]) -> str:
        return answer_text(body["messages"][0]["content"])

    lines: list[str] = []
    clean = 0.0
    for kind, pause in FAULTS.items():
        walls, rows, faulty = [], [], 0
        for turn in range(times):
            faults = Faults(share=0.05, kinds=(kind,), seed=turn) if kind != "none" else Faults()  # type: ignore[arg-type]
            with tempfile.TemporaryDirectory() as folder, serve(script, faults=faults, latency=0.05) as teacher:
                began = time.perf_counter()
                rows.append(len(generate(made_job(teacher.url, FAULTY, Path(folder), limit=5.0)).samples))
                walls.append(time.perf_counter() - began)
                faulty += len(teacher.faulty)
        wall = statistics.median(walls)
        clean = clean or wall
        lines.append(f"| {kind} | {min(rows)} | {faulty // times} | {wall:.2f} s | {2 * clean + 3 * pause:.1f} s |")
        print(lines[-1], flush=True)
    return lines


FAULT_HEAD = """\
| fault in 5 % of the calls | rows | faults | wall | may take |
| --- | ---: | ---: | ---: | ---: |"""
HEAD = """\
| job | client | wall | of ideal | of bare | CPU per 1,000 calls | in flight | peak memory |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"""
TITLE = """\
# Generation beside its peers

Written by `python benchmarks/sdg.py {arguments}`,
which says at its top what is measured and how. Medians of {times} runs (peers: {peers}) in turns on one machine with
{cores} cores; the ratio to *bare* is the median of the ratios of neighbouring runs.
"""


def chosen(given: str | None, wanted: bool) -> list[str]:
    """The peers to run beside ours. Installs them where that is wanted."""
    names = [] if given == "none" else list(PEERS) if given is None else given.split(",")
    for name in names:
        if name not in PEERS:
            sys.exit(f"no peer is called {name}: there are {', '.join(PEERS)}")
        if not installed(name) and (wanted or given):
            install(name)
    return [name for name in names if installed(name)]


def document(given: argparse.Namespace, tables: dict[str, list[str]], peers: list[str]) -> str:
    """The page of results."""
    arguments, cores = " ".join(sys.argv[1:]), os.cpu_count()
    parts = [TITLE.format(arguments=arguments, times=given.times, peers=given.peer_times, cores=cores)]
    jobs = [f"- `{job}`: {JOBS[job][1]}." for job in tables if job in JOBS]
    parts.append("\n".join(jobs + [f"- {versions(name)}" for name in peers]) + "\n")
    rows = [row for job, lines in tables.items() if job in JOBS for row in lines]
    if rows:
        parts.append("\n".join([HEAD, *rows]) + "\n")
    if "faults" in tables:
        parts.append("\n".join([FAULT_HEAD, *tables["faults"]]) + "\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", choices=[*JOBS, "all", "none"], default=["B2"])
    parser.add_argument("--peers", help="names with commas between them, or `none`; without it those installed")
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--libraries", action="store_true", help="the client libraries of the peers, too")
    parser.add_argument("--own", nargs="+", choices=OWN, default=list(OWN))
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--peer-times", type=int, default=1, help="how often the peers run, which take long")
    parser.add_argument("--peer-jobs", nargs="+", choices=JOBS, default=["B2"], help="the jobs that the peers do")
    parser.add_argument("--faults", action="store_true")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    peers = chosen(given.peers, given.install)
    libraries = [name for name, (_, peer) in LIBRARIES.items() if given.libraries and peer in peers]
    jobs = list(JOBS) if "all" in given.jobs else [job for job in given.jobs if job != "none"]
    own = dict.fromkeys(given.own, given.times)
    beside = dict.fromkeys([COMMAND, *libraries, *peers], given.peer_times)
    tables: dict[str, list[str]] = {}
    if jobs:
        print(HEAD)
    for job in jobs:
        tables[job] = compare(job, own | (beside if job in given.peer_jobs else {}))
    if given.faults:
        print(FAULT_HEAD)
        tables["faults"] = under_faults(given.times)
    if given.write:
        RESULT.write_text(document(given, tables, peers), encoding="utf-8")


if __name__ == "__main__":
    main()
