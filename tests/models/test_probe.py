"""What an endpoint can do: found out from its answers, remembered, required, shown."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from ilab.cli.app import Options
from ilab.cli.endpoint import group
from ilab.config import Endpoint
from ilab.errors import ServiceError
from ilab.models import probe as module
from ilab.models.probe import Capabilities, curl, forget, measure, probe
from ilab.testing.teacher import Faults, Features, Teacher, serve

NOTHING = Features(
    completions=False,
    n="refused",
    logprobs="refused",
    json="refused",
    choice="refused",
    seed=False,
    context_length=None,
)
IGNORES = Features(n="ignored", logprobs="ignored", json="ignored", choice="ignored")


def words(body: dict[str, Any]) -> str:
    return f"answer {body.get('seed')}"


def found(teacher: Teacher, cache: Path | None = None, **options: Any) -> Capabilities:
    return asyncio.run(probe(Endpoint(url=teacher.url), cache=cache, **options))


def able(capabilities: Capabilities) -> dict[str, bool]:
    return {name: finding.able for name, finding in capabilities.findings.items()}


def test_a_server_that_can_do_everything() -> None:
    with serve(words, models=("granite", "mixtral")) as teacher:
        capabilities = found(teacher)
    assert set(able(capabilities).values()) == {True}
    assert (capabilities.model, capabilities.models) == ("granite", ("granite", "mixtral"))
    assert capabilities.context_length == 32768
    assert len(teacher.calls) <= 11
    assert max(call["max_tokens"] for call in teacher.calls) <= 24


def test_every_no_has_the_servers_words_and_its_request() -> None:
    with serve(words, features=NOTHING) as teacher:
        capabilities = found(teacher)
    said = {name: finding.said for name, finding in capabilities.findings.items() if not finding.able}
    assert said == {
        "completions": "HTTP 404: Not Found",
        "n": "HTTP 400: n: only 1 is supported",
        "logprobs": "HTTP 400: logprobs are not supported by this model",
        "json_object": "HTTP 400: response_format is not supported",
        "json_schema": "HTTP 400: response_format is not supported",
        "choice": "HTTP 400: Unrecognized request argument supplied: structured_outputs",
        "seed": "different answers for one seed: 'answer 8', 'answer 9'",
    }
    assert capabilities.context_length is None
    assert json.loads(capabilities.findings["n"].body)["n"] == 2


def test_what_is_accepted_and_ignored_is_a_no() -> None:
    with serve(words, features=IGNORES) as teacher:
        capabilities = found(teacher)
    no = {name: finding.said for name, finding in capabilities.findings.items() if not finding.able}
    assert no == {
        "n": "2 choices asked for, 1 given",
        "logprobs": "accepted and ignored",
        "json_object": "accepted and ignored: 'answer None'",
        "json_schema": "accepted and ignored: 'answer None'",
        "choice": "accepted and ignored: 'answer None'",
    }


def test_a_server_without_chat_is_tried_by_plain_completions() -> None:
    with serve(words, features=Features(chat=False)) as teacher:
        capabilities = found(teacher)
    assert able(capabilities) == {**dict.fromkeys(able(capabilities), True), "chat": False}
    assert sum("messages" in call for call in teacher.calls) == 1


def test_a_passing_fault_is_no_answer_to_the_question() -> None:
    plan = {0: "500", 2: "429", 4: "malformed", 6: "reset"}
    with serve(words, faults=Faults(plan=plan)) as teacher:
        capabilities = found(teacher)
    assert teacher.faulty == list(plan.values())
    # Malformed JSON with status 200 is what the server says; everything else was asked again.
    assert [name for name, yes in able(capabilities).items() if not yes] in ([], ["n"])


def test_findings_are_remembered_for_a_day_and_dropped_when_the_server_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(words) as teacher:
        first = found(teacher, tmp_path)
        calls = len(teacher.calls)
        assert found(teacher, tmp_path) == first
        assert len(teacher.calls) == calls
        found(teacher, tmp_path, fresh=True)
        assert len(teacher.calls) == 2 * calls
        teacher._features = Features(context_length=8192)
        assert found(teacher, tmp_path).context_length == 8192
        assert len(teacher.calls) == 3 * calls
        monkeypatch.setattr(module, "DAY", 0.0)
        found(teacher, tmp_path)
        assert len(teacher.calls) == 4 * calls
        monkeypatch.undo()
        forget(tmp_path, Endpoint(url=teacher.url), "teacher")
        found(teacher, tmp_path)
        assert len(teacher.calls) == 5 * calls
        [file] = (tmp_path / "endpoints").iterdir()
        file.write_text("{}")
        assert found(teacher, tmp_path).findings == first.findings


def test_only_what_is_wanted_and_not_known_is_tried(tmp_path: Path) -> None:
    with serve(words) as teacher:
        assert found(teacher, tmp_path, wanted=()).findings == {} and teacher.calls == []
        assert set(found(teacher, tmp_path, wanted={"logprobs"}).findings) == {"chat", "logprobs"}
        assert len(teacher.calls) == 2
        assert set(found(teacher, tmp_path, wanted={"n", "logprobs"}).findings) == {"chat", "logprobs", "n"}
        assert len(teacher.calls) == 3
        assert set(found(teacher, tmp_path).findings) == set(module.WORDS)
        everything = len(teacher.calls)
        assert set(found(teacher, tmp_path, wanted={"seed"}).findings) == set(module.WORDS)
        assert len(teacher.calls) == everything


def test_what_could_not_be_found_out_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIES", 1)
    with serve(words, faults=Faults(plan={1: "503"})) as teacher:
        first = found(teacher, tmp_path, wanted={"logprobs"})
        assert not first["logprobs"] and not first.findings["logprobs"].settled
        assert found(teacher, tmp_path, wanted={"logprobs"})["logprobs"]


def test_a_server_with_the_newer_name_for_the_limit_is_tried_by_that_name(tmp_path: Path) -> None:
    with serve(words, features=Features(limit="max_completion_tokens")) as teacher:
        capabilities = found(teacher, tmp_path)
        assert set(able(capabilities).values()) == {True}
        assert capabilities.limit == "max_completion_tokens"
        assert asyncio.run(measure(Endpoint(url=teacher.url), capabilities, count=2)).failures == {}
        assert sum("max_tokens" in call and "messages" in call for call in teacher.calls) == 1
        (tmp_path / "endpoints").rename(tmp_path / "old")
        assert found(teacher, tmp_path).limit == "max_completion_tokens"


def test_times_and_failures_of_calls_at_once() -> None:
    with serve(words, latency=0.02, faults=Faults(plan={14: "429", 15: "429"})) as teacher:
        capabilities = found(teacher)
        assert len(teacher.calls) + 3 <= 14
        timing = asyncio.run(measure(Endpoint(url=teacher.url), capabilities, count=8))
    assert teacher.peak == 8
    assert timing.failures == {"HTTP 429: injected": 2}
    assert timing.single >= 0.02


def test_the_shown_command_asks_the_same(tmp_path: Path) -> None:
    """The line is run by a shell that knows curl as a function, which gives back its arguments."""
    with serve(words, features=NOTHING) as teacher:
        finding = found(teacher).findings["json_object"]
    line = curl(teacher.url, finding, key=True)
    shell = f'curl() {{ printf "%s\\n" "$@"; }}; API_KEY=sk-1; {line}'
    said = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True).stdout.splitlines()
    assert "Authorization: Bearer sk-1" in said
    assert finding.body in said
    assert said[-1] == f"{teacher.url}/chat/completions"


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: str, as_json: bool = False) -> str:
        options = Options(tmp_path, [f"where.cache={tmp_path}"], None, as_json=as_json, verbose=False)
        group.main(["check", *arguments], obj=options, standalone_mode=False)
        return capsys.readouterr().out

    return run


def test_the_command_shows_all_of_it(check: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-very-secret")
    with serve(words, features=NOTHING, key="sk-very-secret", models=("one", "[red]two\x1b[31m")) as teacher:
        shown = check(teacher.url, "--api-key", "env:SOME_KEY")
        told = json.loads(check(teacher.url, "--api-key", "env:SOME_KEY", as_json=True))
    assert "HTTP 400: n: only 1 is supported" in shown
    assert '-H "Authorization: Bearer $API_KEY"' in shown
    assert "8 of 8 answered" in shown
    assert "[red]two" in shown
    assert "secret" not in shown + json.dumps(told)
    assert "\x1b" not in shown
    assert told["findings"]["chat"] == {"able": True}
    assert told["findings"]["n"]["said"] == "HTTP 400: n: only 1 is supported"
    assert told["timing"]["count"] == 8


def test_the_command_says_what_is_wrong(check: Callable[..., str]) -> None:
    with pytest.raises(click.exceptions.NoArgsIsHelpError):
        group.main([], standalone_mode=False)
    with serve(words, key="right") as teacher, pytest.raises(ServiceError, match="refuses the key"):
        check(teacher.url)
    with serve(words) as teacher, pytest.raises(ServiceError, match="does not serve a model named 'nobody'"):
        check(teacher.url, "--model", "nobody")
