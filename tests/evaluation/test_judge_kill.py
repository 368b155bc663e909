"""A benchmark that is killed outright, and one that needs no server at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from ilab.core.events import Bus
from ilab.core.memo import Memo
from ilab.evaluation.benchmarks.chat_files import Question, QuestionSet
from ilab.evaluation.benchmarks.mt_bench import run_mt_bench
from ilab.evaluation.judge import NO_ANSWER
from ilab.evaluation.rule_judge import RuleJudge
from ilab.evaluation.subject import Asking, LocalSubject
from ilab.testing.judging import by_length
from ilab.testing.teacher import serve

RUN = """
import sys
from pathlib import Path

from ilab.config import Endpoint, Where
from ilab.core.events import Bus
from ilab.core.memo import Memo
from ilab.evaluation.benchmarks.chat_files import Question, QuestionSet
from ilab.evaluation.benchmarks.mt_bench import run_mt_bench
from ilab.evaluation.judge import open_judge
from ilab.evaluation.subject import Asking, endpoint_subject

url, folder = sys.argv[1], Path(sys.argv[2])
emit = Bus().for_step("evaluate")
endpoint = Endpoint(url=url, in_flight=2)
where = Where(judge=endpoint, cache=str(folder / "cache"))
judge = open_judge(where, "judge", memo=Memo(folder / "judge"), emit=emit)
subject = endpoint_subject("student", endpoint, Asking(Memo(folder / "answers"), emit))
questions = tuple(Question(question_id=i, category="math", turns=(f"Question {i}?",), reference=("r",)) for i in range(12))
print(run_mt_bench(QuestionSet("twelve", questions), subject, judge, folder / "out", emit).model_dump_json())
"""


def start(url: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", RUN, url, str(folder)], stdout=subprocess.PIPE, text=True)


def test_a_kill_asks_nothing_twice(tmp_path: Path) -> None:
    """kill -9 while the judge is at work: only what was under way is asked again, and the result is the same."""

    def script(body: dict[str, object]) -> str:
        messages = body["messages"]
        assert isinstance(messages, list)
        return by_length(messages[-1]["content"]) if body["model"] == "judge" else "one two"

    with serve(script, models=("student", "judge"), latency=0.02) as server:
        killed = start(server.url, tmp_path / "kept")
        while len(server.calls) < 22 and killed.poll() is None:  # 12 answers, then the judge
            time.sleep(0.005)
        os.kill(killed.pid, signal.SIGKILL)
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL and 22 <= len(server.calls) < 36
        second = start(server.url, tmp_path / "kept")
        resumed, _ = second.communicate(timeout=60)
        assert second.returncode == 0
        asked = Counter(str(sorted(call.items(), key=str)) for call in server.calls)
        assert len(asked) == 36 and sum(asked.values()) <= 36 + 2 and max(asked.values()) <= 2
        before = len(server.calls)
        whole, _ = start(server.url, tmp_path / "fresh").communicate(timeout=60)
        assert len(server.calls) == before + 36
    assert resumed == whole and '"score":2.0' in whole


def test_a_folder_and_the_judge_by_rule_need_no_server(tiny_model: Path, tmp_path: Path) -> None:
    """A random model, end to end; what does not fit its window of 256 tokens is unscored."""
    questions = (
        Question(question_id=1, category="math", turns=("How many locks?",), reference=("14",)),
        Question(question_id=2, category="math", turns=("word " * 300,), reference=("14",)),
        Question(question_id=3, category="writing", turns=("Write: lamp",), reference=("lamp",)),
    )

    def run(name: str) -> str:
        memo = Memo(tmp_path / name)
        emit = Bus().for_step("evaluate")
        subject = LocalSubject("tiny", tiny_model, Asking(memo, emit), device="cpu")
        result = run_mt_bench(QuestionSet("three", questions), subject, RuleJudge(), tmp_path / f"{name}-out", emit)
        memo.close()
        assert result.unscored == {NO_ANSWER: 1} and result.n == 2 and result.judge == "rule"
        assert [row.answer is None for row in result.rows] == [False, True, False]
        return result.model_dump_json()

    assert run("a") == run("b")
