"""One client in a process of its own, in its own environment: does the job and prints what it took, as JSON.

    python benchmarks/peers/child.py CLIENT URL WORK

CLIENT is a module of this folder. It has ``run(url, work)``, which returns how many rows came out, and says in
``expected(work)`` how many rows and calls the whole job is for it, where that is not 3 n and 7 n. What it imports at
its top and what it does in ``prepare(work)`` and ``clear()`` is not measured; other processes that it starts are.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time

from job import Work


def spent() -> float:
    """Seconds of processor time of this process and of those it started and has waited for."""
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def main() -> None:
    name, url, told = sys.argv[1:4]
    work = Work(**json.loads(told))
    client = importlib.import_module(name)
    rows, calls = client.expected(work) if hasattr(client, "expected") else (3 * work.documents, work.calls)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # which ours does for itself
    if hasattr(client, "prepare"):
        client.prepare(work)
    cpu, wall = spent(), time.perf_counter()
    got = client.run(url, work)
    wall, cpu = time.perf_counter() - wall, spent() - cpu
    if hasattr(client, "clear"):
        client.clear()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    result = {"wall": wall, "cpu": cpu, "memory": memory, "rows": got, "whole": [rows, calls]}
    print(f"\n{json.dumps(result)}", flush=True)


if __name__ == "__main__":
    main()
