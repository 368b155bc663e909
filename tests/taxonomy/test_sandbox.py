"""The process in which hostile files are read tells a hang, a crash and a forbidden act from an answer."""

from pathlib import Path

import pytest
from sandbox import Sandbox

DEEDS = {
    "return 'fine'": "",
    "raise ValueError('no')": "ValueError: no",
    "raise SystemExit(0)": "SystemExit",
    "import os; os.kill(os.getpid(), 11)": "was ended by SIGSEGV",
    "import os; os._exit(3)": "ended with exit code 3",
    "bytearray(2**31)": "MemoryError",
    "open('/etc/passwd').read()": "opens '/etc/passwd'",
    "open('../outside', 'w').close()": "opens '../outside'",
    "open('inside', 'w').close(); import os; os.remove('inside')": "",
    "import os; os.mkdir('../outside')": "os.mkdir",
    "import socket; socket.create_connection(('127.0.0.1', 9))": "socket.",
    "import subprocess; subprocess.run(['true'])": "subprocess.Popen",
    "import subprocess, sys; subprocess.run([sys.executable, '-m', 'this'], capture_output=True)": "",
    "try: open('/etc/passwd')\n    except OSError: pass": "opens '/etc/passwd'",
}


@pytest.mark.parametrize("deed", DEEDS)
def test_what_a_deed_is_told_as(deed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deed.py").write_text(f"def do(data):\n    {deed}\n")
    monkeypatch.syspath_prepend(tmp_path)
    inside = tmp_path / "inside"
    inside.mkdir()
    with Sandbox("deed:do", inside, memory=2**30, starts="this") as sandbox:
        for _ in range(2):  # the second time in a new process, where the first has gone
            if not DEEDS[deed]:
                assert sandbox.run(b"") in ("", "fine")
                continue
            with pytest.raises(AssertionError) as told:
                sandbox.run(b"")
            assert DEEDS[deed] in str(told.value)
    assert not (tmp_path / "outside").exists()


@pytest.mark.long
@pytest.mark.parametrize("deed", ["while True: pass", "import re; re.match('(a|a)*b', 'a' * 60)"])
def test_a_hang_ends(deed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deed.py").write_text(f"def do(data):\n    {deed}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with Sandbox("deed:do", tmp_path) as sandbox, pytest.raises(AssertionError, match="too much processor time"):
        sandbox.run(b"")
