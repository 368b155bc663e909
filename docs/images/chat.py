"""Draws chat.svg, the picture in docs/how-to/chat.md, from a chat with the quickstart's model. Build it first.

    .venv/bin/python docs/images/chat.py [PROJECT]

What is asked stands below; what is answered, and the boxes, are those of `ilab model chat` itself.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from ilab.chat.session import ChatSession
from ilab.cli.app import Options
from ilab.cli.chat_partner import here
from ilab.cli.chat_screen import Screen
from ilab.cli.model_chat import Talk

ROOT = Path(__file__).resolve().parents[2]
LINES = ("How tall is the tower?", "Put a lesson with Marta at 14 in my calendar.", "/about")
WIDTH = 96


class Recorder(Screen):
    """The chat's screen, with its notes recorded as well."""

    def __init__(self) -> None:
        self.console = Console(record=True, file=io.StringIO(), width=WIDTH, color_system="truecolor", highlight=False)
        super().__init__(decorated=True, console=self.console)

    def text(self, text: str) -> None:
        self.console.print(Text(text))

    def note(self, text: str) -> None:
        self.console.print(Text(text, style="dim"))


class Script:
    """Types the lines above."""

    multiline = once = False

    def __init__(self, screen: Recorder) -> None:
        self._screen = screen
        self._lines: Iterator[str] = iter(LINES)

    def read(self) -> str | None:
        line = next(self._lines, None)
        if line is not None:
            self._screen.console.print(Text(f">>> {line}", style="bold"))
        return line


def main(project: Path) -> None:
    options = Options(project, (), None, as_json=False, verbose=False)
    given = dict.fromkeys(("model_path", "model_id", "model", "serving_log_file"))
    screen = Recorder()
    with ExitStack() as stack:
        partner = here(options, options.load(), given, stack)
        talk = Talk(ChatSession(partner.talker), partner, screen)
        talk.greet()
        talk.converse(Script(screen), interactive=False)
    # Without the fonts that the format fetches from elsewhere.
    form = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    picture = screen.console.export_svg(title="ilab model chat", code_format=form, unique_id="chat")
    (ROOT / "docs/images/chat.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "examples/quickstart")
