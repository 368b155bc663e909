"""What hostile documents reach for: an address on this machine, a file outside, names that leave a folder.

``touched()`` tells whether anybody called at the address; no document may hold ``SECRET``, which stands in the file.
"""

from __future__ import annotations

import atexit
import socket

SECRET = "the-secret-of-the-bait"
FILE = "../bait.txt"  # as seen from the folder of the process that reads
_SERVER = socket.create_server(("127.0.0.1", 0))
_SERVER.setblocking(False)
atexit.register(_SERVER.close)
URL = f"http://127.0.0.1:{_SERVER.getsockname()[1]}/bait"
ESCAPES = (
    *(
        "../escaped.txt",
        "a/../../escaped.txt",
        "/tmp/ilab-escaped.txt",
        "..\\escaped.txt",
        "C:\\escaped.txt",
        "//h/e.txt",
    ),
    *(
        "word/../../escaped.xml",
        "./../escaped.xml",
        "a\x00b",
        "a" * 5000,
        "",
        "/",
        ".",
        "..",
        "~/escaped.txt",
        "\u202etxt",
    ),
)


def touched() -> bool:
    """Whether anybody has connected to ``URL`` since the last call."""
    try:
        _SERVER.accept()[0].close()
    except BlockingIOError:
        return False
    return True
