"""The process that reads PDF files: what kills it is an error message, and the next file is read."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pdf_writer import Page, Text, write_pdf

from ilab.documents.convert import read
from ilab.documents.pdf import process as pdf_process
from ilab.documents.pdf import reader as pdf
from ilab.errors import InputError

GOOD = write_pdf([Page((Text(72, 600, "The kiln is hot."), Text(72, 500, "unseen", mode=3)))], title="On Kilns")


def test_it_gives_what_the_reader_gives() -> None:
    assert pdf_process.read(GOOD) == pdf.read(GOOD)
    with pytest.raises(InputError) as there:
        pdf_process.read(b"%PDF-1.4 nothing")
    with pytest.raises(InputError) as here:
        pdf.read(b"%PDF-1.4 nothing")
    assert (there.value.message, there.value.hint) == (here.value.message, here.value.hint)


def test_after_a_crash_the_next_file_is_read() -> None:
    child = pdf_process._Child()
    child.read(GOOD)
    assert child._process
    os.kill(child._process.pid, signal.SIGSEGV)
    os.waitid(os.P_PID, child._process.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(InputError, match=r"cannot be read: the PDF library fails \(SIGSEGV\)"):
        child.read(GOOD)
    assert child.read(GOOD).title == "On Kilns"
    assert child.close() == 0


def test_it_ends_with_its_program() -> None:
    program = (
        "import sys; from ilab.documents.pdf import process as p; data = sys.stdin.buffer.read(); p.read(data);"
        "print(p._CHILD._process.pid)"
    )
    root = str(Path(pdf_process.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=GOOD,
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


@pytest.mark.long
def test_a_file_that_would_fill_the_memory_is_refused() -> None:
    """Forms that draw ten forms each that draw ten forms each: pdfium takes them all in before it answers."""
    from hostile_pdf import PDF_BOMBS

    with pytest.raises(InputError, match=r"cannot be read|too much memory|too long"):
        read(PDF_BOMBS["a billion forms"](16), "x.pdf")
    assert "The kiln is hot." in read(GOOD, "x.pdf").text
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 2 * 2**20
