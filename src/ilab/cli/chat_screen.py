"""What a chat shows: answers as they come, boxes with Markdown, notes.

While an answer comes, the box shows as much of its end as the screen has room for, and is drawn a few times a second;
once it is complete it is printed whole, once, so that scrolling back shows every line exactly once. Everything that a
model says goes through :func:`ilab.chat.untrusted.neutral`; nothing of it is read as markup or made a link whose
address one does not see.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Sequence
from contextlib import closing

import click
from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.padding import Padding
from rich.panel import Panel
from rich.segment import Segment
from rich.text import Text

from ilab.chat.untrusted import neutral
from ilab.cli.render import PlainConsole, seconds
from ilab.data import Message

FRAMES = 8  # a second
NOTHING = "(the model said nothing)"


class Screen:
    """``decorated``: boxes and Markdown, for a terminal; otherwise the text alone. ``follow``: of an answer that is
    longer than the screen the end is shown while it comes, otherwise the beginning."""

    def __init__(self, decorated: bool, follow: bool = True, console: Console | None = None) -> None:
        self.decorated = decorated
        self._follow = follow
        self._console = console or PlainConsole(highlight=False)

    def answer(self, pieces: Generator[str, None, None], title: str) -> bool:
        """Show an answer as it comes; whether it came to its end. Ctrl-C ends it, and only it."""
        said: list[str] = []
        begun = time.monotonic()
        whole = False

        def frame() -> RenderableType:
            box = self._box("".join(said), title, f"{seconds(time.monotonic() - begun)} · Ctrl-C stops")
            return _Part(box, self._follow)

        try:
            with closing(pieces):
                if self.decorated:
                    live = Live(get_renderable=frame, console=self._console, refresh_per_second=FRAMES, transient=True)
                    with live:
                        for piece in pieces:
                            said.append(neutral(piece))
                else:
                    for piece in pieces:
                        said.append(neutral(piece))
                        click.echo(said[-1], nl=False)
                        sys.stdout.flush()
            whole = True
        except KeyboardInterrupt:
            pass
        finally:
            took = seconds(time.monotonic() - begun)
            if self.decorated and (said or whole):
                self._console.print(self._box("".join(said) or NOTHING, title, took if whole else f"stopped, {took}"))
            elif said or whole:  # an empty answer is a line too
                click.echo()
        if not whole:
            self.note("stopped")
        return whole

    def box(self, text: str, title: str) -> None:
        """An answer in a box; plain where nothing is decorated."""
        if self.decorated:
            self._console.print(self._box(neutral(text), title, ""))
        else:
            self.plain(text)

    def plain(self, text: str) -> None:
        click.echo(neutral(text))

    def markdown(self, text: str) -> None:
        """With its Markdown drawn, without a box."""
        if self.decorated:
            self._console.print(_markdown(neutral(text)))
        else:
            self.plain(text)

    def replay(self, messages: Sequence[Message]) -> None:
        """A conversation that was loaded, dimmed."""
        for message in messages:
            text = neutral(message.content)
            if not self.decorated:
                click.echo(f"{message.role}: {text}")
            elif message.role == "assistant":
                self._console.print(Padding(Text(text, style="dim"), (0, 0, 1, 4)))
            else:
                head = ">>> " if message.role == "user" else f"{message.role}: "
                self._console.print(Text(f"{head}{text}", style="dim"))

    def note(self, text: str) -> None:
        """Something that is no answer: on standard error, dimmed."""
        click.echo(click.style(neutral(text), dim=True), err=True)

    def text(self, text: str) -> None:
        """What a command answers."""
        click.echo(neutral(text), err=True)

    def _box(self, text: str, title: str, below: str) -> Panel:
        return Panel(
            _markdown(text) if text else Text("…", style="dim"),
            title=Text(neutral(title)),
            subtitle=Text(below, style="dim") if below else None,
            subtitle_align="right",
            title_align="left",
        )


def _markdown(text: str) -> Markdown:
    """``text`` as Markdown, without what would hide a part of it: HTML is shown as written, a link with its address;
    a line end stays one."""
    drawn = Markdown("", hyperlinks=False)
    parser = MarkdownIt().enable(["strikethrough", "table"]).disable(["html_block", "html_inline"])
    drawn.parsed = parser.parse(text)
    for token in drawn.parsed:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"
    return drawn


class _Part:
    """The end of something, or its beginning, as high as the screen allows."""

    def __init__(self, whole: RenderableType, end: bool) -> None:
        self._whole = whole
        self._end = end

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._whole, options.update(height=None), pad=False)
        room = max(3, console.size.height - 1)
        kept = lines if len(lines) <= room else lines[-room:] if self._end else lines[:room]
        for number, line in enumerate(kept):
            yield from line
            if number < len(kept) - 1:
                yield Segment.line()


def is_terminal() -> bool:
    """Whether answers go to a terminal that can draw boxes."""
    return sys.stdout.isatty() and PlainConsole().is_terminal and not PlainConsole().is_dumb_terminal
