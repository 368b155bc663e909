"""`ilab data generate` itself: start, taxonomy, reading and cutting 1,000 documents, the job, store and result.

This is more than the job; it shows what a user waits for.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from job import Work, documents
from ours import write_flow

HEAD = """\
version: 3
created_by: benchmark
domain: kilns
document_outline: Kilns and mills.
document:
  path: texts
seed_examples:
"""
SEED = """\
  - context: The kiln {n} burns.
    questions_and_answers:
      - {{question: 'What burns in {n}?', answer: 'the kiln {n}'}}
      - {{question: 'Which kiln is {n}?', answer: 'the kiln {n}'}}
      - {{question: 'What does kiln {n} do?', answer: it burns}}
"""
FOLDER = Path(tempfile.gettempdir()) / f"ilab-benchmark-{os.getpid()}"


def prepare(work: Work) -> None:
    """Write the taxonomy and the flow."""
    leaf = FOLDER / "taxonomy" / "knowledge" / "kilns"
    (leaf / "texts").mkdir(parents=True)
    (leaf / "qna.yaml").write_text(HEAD + "".join(SEED.format(n=n) for n in range(5)), encoding="utf-8")
    for number, text in enumerate(documents(work.documents)):
        (leaf / "texts" / f"{number:05}.md").write_text(f"{text}\n", encoding="utf-8")
    write_flow(FOLDER / "flow")


def run(url: str, work: Work) -> int:
    where = f"where.teacher.in_flight={work.in_flight}"
    command = [sys.executable, "-m", "ilab", "--json", "--store", str(FOLDER / "store"), "--set", where]
    command += ["data", "generate", "--taxonomy-path", str(FOLDER / "taxonomy"), "--pipeline", str(FOLDER / "flow")]
    command += ["--endpoint-url", url, "--model", "teacher", "--sdg-scale-factor", "1", "-p", "chunk_tokens=1000"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=FOLDER)
    return int(json.loads(done.stdout)["counts"]["accepted"])


def clear() -> None:
    shutil.rmtree(FOLDER)
