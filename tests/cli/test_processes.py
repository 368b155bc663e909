"""Commands in the background: real processes, killed, lost, torn, and never the wrong one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ilab.core.pids import _from_ps, born
from ilab.errors import InputError
from ilab.processes import Process, Processes, without_password

PYTHON = (sys.executable, "-c")
SLEEP = "import time; print('begun', flush=True); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {SLEEP}"
# Its child tells of the signal, too: the whole group gets it, as from a terminal.
PARENT = """
import signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", '''
import time
print("child begun", flush=True)
try: time.sleep(600)
except KeyboardInterrupt: print("child stopped", flush=True)
'''])
try: child.wait()
except KeyboardInterrupt: child.wait(); print("parent stopped", flush=True); sys.exit(130)
"""


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    registry = Processes(tmp_path / "processes")
    yield registry
    for one in registry.all():
        if one.state == "running":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.group, signal.SIGKILL)


def soon(what: Callable[[], bool]) -> None:
    """Wait until it is so."""
    for _ in range(600):
        if what():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to be")


def begun(processes: Processes, code: str = SLEEP) -> Process:
    """A process that has said its first word."""
    process = processes.start([code], PYTHON)
    soon(lambda: "begun" in process.log.read_text())
    return process


def told(process: Process) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((process.log.parent / "process.json").read_text())
    return facts


def retell(process: Process, **facts: Any) -> None:
    (process.log.parent / "process.json").write_text(json.dumps({**told(process), **facts}))


def test_what_it_says_and_how_it_ends(processes: Processes) -> None:
    process = processes.start(["import sys; print('one'); print('two', end='', file=sys.stderr); sys.exit(3)"], PYTHON)
    assert sorted(processes.follow(process)) == ["one", "two"]
    ended = processes.read(process.id)
    assert (ended.state, ended.code, ended.directory) == ("failed", 3, str(Path.cwd()))
    assert ended.ended is not None and ended.started <= ended.ended
    assert list(processes.follow(ended)) == list(processes.follow(process))
    assert ended.log.stat().st_mode & 0o777 == 0o600
    assert ended.log.parent.stat().st_mode & 0o777 == processes.root.stat().st_mode & 0o777 == 0o700
    done = processes.start(["print()"], PYTHON)
    list(processes.follow(done))
    assert processes.read(done.id).state == "done"
    assert [one.id for one in processes.all()] == [process.id, done.id]
    assert processes.find(None).id == processes.find(done.id[:7]).id == done.id


def test_the_log_is_followed_while_it_grows(processes: Processes, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    code = f"import os, time\nprint('a', flush=True)\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.02)\nprint('é', end='')"
    process = processes.start([code], PYTHON)
    lines = processes.follow(process)
    assert next(lines) == "a"
    assert processes.read(process.id).state == "running"
    gate.touch()
    assert list(lines) == ["é"]


def test_killed_by_somebody_else(processes: Processes) -> None:
    process = begun(processes)
    os.kill(process.pid, signal.SIGKILL)
    soon(lambda: processes.read(process.id).state != "running")
    assert (processes.read(process.id).state, processes.read(process.id).code) == ("failed", 137)


def test_without_its_supervisor_it_runs_on_and_can_be_stopped(processes: Processes) -> None:
    process = begun(processes)
    os.kill(process.group, signal.SIGKILL)
    soon(lambda: born(process.group) is None)
    assert processes.read(process.id).state == "running"
    assert processes.stop(process).state == "lost"  # nobody saw its exit code
    assert born(process.pid) is None
    processes.remove(process)
    assert processes.all() == []


def test_whoever_started_it_may_go(processes: Processes) -> None:
    program = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); from pathlib import Path; from ilab.processes import Processes; import time; Processes(Path({str(processes.root)!r})).start([{SLEEP!r}], {PYTHON!r}); time.sleep(600)"
    starter = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    soon(lambda: bool(processes.all()))
    os.killpg(starter.pid, signal.SIGHUP)
    assert starter.wait() == -signal.SIGHUP
    (process,) = processes.all()
    assert process.state == "running"
    assert os.getsid(process.pid) == process.group != os.getsid(0)


def test_stopping_reaches_the_whole_group_once(processes: Processes) -> None:
    process = begun(processes, PARENT)
    ended = processes.stop(process)
    assert (ended.state, ended.code) == ("stopped", 130)
    assert process.log.read_text().splitlines() == ["child begun", "child stopped", "parent stopped"]


def test_only_force_kills(processes: Processes) -> None:
    process = begun(processes, DEAF)
    ended = processes.stop(process, kill_after=0.3)
    assert (ended.state, ended.code) == ("failed", 137)
    assert born(process.pid) is None and born(process.group) is None
    with pytest.raises(InputError, match="does not run any more"):
        processes.stop(process)


def test_a_pid_that_another_program_got_is_never_signalled(processes: Processes) -> None:
    stranger = subprocess.Popen((*PYTHON, SLEEP), stdout=subprocess.PIPE, start_new_session=True)
    process = begun(processes)
    try:
        assert stranger.stdout is not None and stranger.stdout.readline() == b"begun\n"
        retell(process, pid=stranger.pid, group=stranger.pid)
        assert processes.read(process.id).state == "lost"
        for kill_after in (None, 0.0):
            with pytest.raises(InputError, match=r"does not run any more \(lost\)"):
                processes.stop(process, kill_after)
        processes.remove(process)
        assert stranger.poll() is None
    finally:
        os.killpg(process.group, signal.SIGKILL)
        stranger.kill()
        stranger.communicate()


def test_after_a_restart_of_the_machine_it_is_lost(processes: Processes) -> None:
    process = begun(processes)
    mine = told(process)
    then = {name: f"another boot:{mine[name].rpartition(':')[2]}" for name in ("born", "group_born")}
    retell(process, **then)
    assert processes.read(process.id).state == "lost"
    retell(process, **{name: mine[name] for name in then})
    assert processes.read(process.id).state == "running"


def test_on_another_machine_nothing_is_known_and_nothing_done(processes: Processes) -> None:
    process = begun(processes)
    mine = told(process)
    retell(process, host="elsewhere.example")
    assert processes.read(process.id).state == "running", "this machine has another name by now"
    retell(process, born="another boot:1", group_born="another boot:1")
    assert processes.read(process.id).state == "elsewhere"
    for act in (processes.stop, processes.remove):
        with pytest.raises(InputError, match=r"elsewhere\.example"):
            act(process)
    retell(process, **mine)
    assert processes.read(process.id).state == "running"


def test_torn_files_harm_one_entry_at_most(processes: Processes) -> None:
    whole, torn, half = (processes.start([f"print({number})"], PYTHON) for number in range(3))
    for one in (whole, torn, half):
        list(processes.follow(one))
    record, ending = torn.log.parent / "process.json", half.log.parent / "ended.json"
    record.write_text(record.read_text()[:20])
    (torn.log.parent / "ended.json").unlink()
    ending.write_text("")
    (processes.root / "notes.txt").touch()
    (processes.root / ".0123abcd.new").mkdir()
    states = {one.id: one.state for one in processes.all()}
    assert states == {whole.id: "done", torn.id: "lost", half.id: "lost"}
    assert processes.read(torn.id).facts()["started"] is None
    for one in processes.all():
        processes.remove(one)
    assert processes.all() == []
    assert sorted(path.name for path in processes.root.iterdir()) == [".0123abcd.new", "notes.txt"]


def test_what_runs_is_not_removed(processes: Processes) -> None:
    process = begun(processes)
    with pytest.raises(InputError, match="still runs"):
        processes.remove(process)
    assert processes.read(process.id).state == "running"


def test_the_same_command_does_not_run_twice_at_once(processes: Processes) -> None:
    first = begun(processes)
    with pytest.raises(InputError, match="runs in the background already") as caught:
        processes.start([SLEEP], PYTHON)
    assert first.id in caught.value.hint
    processes.stop(first)
    assert begun(processes).id != first.id


def test_ids_are_found_by_their_beginning(processes: Processes) -> None:
    with pytest.raises(InputError, match=r"there is no background process\n"):
        processes.find(None)
    process = processes.start(["pass"], PYTHON)
    list(processes.follow(process))
    for other in ("ab000000", "ab111111"):
        (processes.root / other).mkdir()
    assert processes.find(process.id[:6]).id == process.id
    assert processes.find("ab0").id == "ab000000"
    with pytest.raises(InputError, match="several"):
        processes.find("ab")
    with pytest.raises(InputError, match="there is no background process x"):
        processes.find("x")


def test_no_secret_is_written(processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "s3cr3t-of-the-environment")
    code = (
        "import os, sys; assert os.environ['TEACHER_KEY'] and sys.argv[1].startswith('https://me:pa55'); print('seen')"
    )
    process = processes.start([code, "https://me:pa55word@example.org/x"], PYTHON)
    assert list(processes.follow(process)) == ["seen"]
    kept = "".join(path.read_text() for path in process.log.parent.iterdir())
    assert "https://***@example.org/x" in kept
    assert "pa55" not in kept.replace(code, "").replace(json.dumps(code)[1:-1], "")
    assert "s3cr3t" not in kept
    assert without_password("a=ssh://git@host/x,b@c") == "a=ssh://***@host/x,b@c"
    assert without_password("mail@example.org http://x/a@b") == "mail@example.org http://x/a@b"


def test_modules_of_the_folder_are_not_imported(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working folder may be somebody else's taxonomy."""
    monkeypatch.chdir(tmp_path)
    for name in ("yaml", "json", "click", "ilab"):
        (tmp_path / f"{name}.py").write_text("open('trodden', 'w')\n")
    process = processes.start(["--version"])
    assert next(processes.follow(process)).startswith("ilab, version")
    assert not (tmp_path / "trodden").exists()


def test_born_tells_processes_apart() -> None:
    child = subprocess.Popen((*PYTHON, SLEEP), stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    since = born(child.pid)
    assert since is not None and since == born(child.pid) != born(os.getpid())
    by_ps = _from_ps(child.pid)  # for systems without /proc
    assert by_ps is None or str(time.gmtime().tm_year) in by_ps
    child.kill()
    soon(lambda: born(child.pid) is None)  # a zombie that nobody has waited for yet
    assert _from_ps(child.pid) is None
    child.communicate()
    assert born(child.pid) is None and born(0) is None
