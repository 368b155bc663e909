"""What a command costs before it does anything: CPU-seconds of `--help` and of a press of TAB, beside Python itself.

    python benchmarks/startup.py            # some seconds on one core
    python benchmarks/startup.py --write    # also put the figures into benchmarks/startup.md

CPU-seconds of user and system together, the least of several runs: what else the machine does is not counted.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

RESULT = Path(__file__).with_suffix(".md")
ILAB = (sys.executable, "-m", "ilab")
LINES = {
    "python -c pass": (sys.executable, "-c", "pass"),
    "python -c 'import click'": (sys.executable, "-c", "import click"),
    **{f"ilab {line}": (*ILAB, *line.split()) for line in ("--help", "model --help", "run --help", "taxonomy --help")},
}
TABS = ("ilab mod", "ilab model train --ph", "ilab run -p sdg_", "ilab model remove gr", "ilab run --set where.")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runs", type=int, default=5, help="runs of each, of which the least counts")
    arguments.add_argument("--write", action="store_true", help=f"put the figures into {RESULT.name}")
    options = arguments.parse_args()
    figures = {what: least(line, {}, options.runs) for what, line in LINES.items()}
    for typed in TABS:
        asked = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1), "_ILAB_COMPLETE": "bash_complete"}
        figures[f"{typed}<TAB>"] = least(ILAB, asked, options.runs)
    text = "| typed | CPU-seconds |\n| --- | ---: |\n"
    text += "".join(f"| `{what}` | {seconds:.3f} |\n" for what, seconds in figures.items())
    sys.stdout.write(text)
    if options.write:
        RESULT.write_text(
            f"# How long a command takes to start\n\nMade by `benchmarks/startup.py`.\n\n{text}", encoding="utf-8"
        )


def least(line: Sequence[str], environment: Mapping[str, str], runs: int) -> float:
    """CPU-seconds of the cheapest of ``runs``; one before them fills the caches of compiled modules."""
    used = []
    for _ in range(runs + 1):
        before = _children()
        subprocess.run(line, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, check=True)
        used.append(_children() - before)
    return min(used[1:])


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
