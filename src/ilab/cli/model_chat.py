"""``ilab model chat``: talk to a model in the terminal, or ask it a question from a script."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options, show_error
from ilab.cli.old_options import OldOptions
from ilab.cli.rag_options import RAG_OPTIONS, retriever_for
from ilab.errors import IlabError, InputError

if TYPE_CHECKING:
    from ilab.chat.commands import Outcome
    from ilab.chat.session import ChatSession
    from ilab.cli.chat_input import Lines
    from ilab.cli.chat_partner import Partner
    from ilab.cli.chat_screen import Screen
    from ilab.rag.search import Retriever

OLD = OldOptions(taken={"--model-family": "the model's own chat template is used"}, refused={})
GREEDY = "greedy_mode"


@click.command()
@click.argument("question", nargs=-1)
@click.option("-m", "--model", metavar="NAME", help="Its name at the server, a folder, or a name in `ilab model list`.")
@click.option("--model-path", metavar="PATH", help="A Hugging Face folder or a GGUF file, whatever server is running.")
@click.option("--model-id", metavar="ID", help="An entry of models.named.")
@click.option("-c", "--context", metavar="NAME", help="System prompt by name.  [config: chat.context]")
@click.option("--system", default="", metavar="TEXT", help="A system prompt, in place of a context's.")
@click.option("-s", "--session", metavar="FILE", help="Go on with a saved conversation.  [config: chat.session]")
@click.option("-qq", "--quick-question", is_flag=True, help="Answer QUESTION, or standard input, and leave.")
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="Longest answer.  [config: chat.max_tokens]")
@click.option(
    "-t", "--temperature", type=click.FloatRange(0, 2), metavar="X", help="0 to 2.  [config: chat.temperature]"
)
@click.option("-gm", "--greedy-mode", GREEDY, is_flag=True, help="The same as --temperature 0.")
@click.option("-nd", "--no-decoration", is_flag=True, help="Text alone: no boxes, no Markdown.")
@click.option("--endpoint-url", metavar="URL", help="Talk to this server.  [config: chat.endpoint.url]")
@click.option("--api-key", metavar="REF", help="env:NAME or file:PATH that holds the server's key.")
@click.option("--tls-insecure", is_flag=True, default=None, help="Do not check the server's certificate.")
@click.option("--tls-client-cert", metavar="FILE", help="Certificate to show to the server (PEM).")
@click.option("--tls-client-key", metavar="FILE", help="Its private key, where it is in a file of its own.")
@click.option("--tls-client-passwd", metavar="REF", help="env:NAME or file:PATH that holds the private key's password.")
@click.option("--serving-log-file", metavar="FILE", help="Where a server that is started for this chat writes.")
@RAG_OPTIONS
@OLD
@click.pass_obj
def chat(options: Options, /, question: tuple[str, ...], **given: Any) -> None:
    """Talk to a model: the one that is served on this machine, else the last build's, one by name, or a server's.

    /h shows the commands there, Ctrl-C stops an answer, /q leaves.
    """
    from ilab.cli.chat_input import PipedLines
    from ilab.cli.chat_partner import meet
    from ilab.cli.chat_screen import Screen, is_terminal

    if given[GREEDY] and given["temperature"]:
        raise click.UsageError("--greedy-mode is --temperature 0: give one of the two")
    asked = _question(question, given["quick_question"])
    loaded = options.load(
        chat__context=given["context"],
        chat__max_tokens=given["max_tokens"],
        chat__temperature=0.0 if given[GREEDY] else given["temperature"],
        chat__session=str((options.directory / Path(given["session"]).expanduser()).absolute())
        if given["session"]
        else None,
    )
    _check(loaded)
    retriever = retriever_for(options, given)
    screen = Screen(is_terminal() and not given["no_decoration"], loaded.config.chat.visible_overflow)
    with ExitStack() as stack:
        partner = meet(options, loaded, given, stack)
        session = _session(loaded, partner, given, retriever)
        if given["quick_question"] and options.as_json:
            _as_json(options, session, asked)
            return
        talk = Talk(session, partner, screen)
        typed = sys.stdin.isatty()
        if not given["quick_question"] and typed:
            talk.greet()
        if asked and not talk.ask(asked) and given["quick_question"]:
            raise KeyboardInterrupt
        if not given["quick_question"]:
            talk.converse(_typed(talk, loaded.config.chat.vi_mode) if typed else PipedLines(), interactive=typed)


def _question(words: tuple[str, ...], quick: bool) -> str:
    """What is asked on the command line; with ``-qq`` and nothing there, what stands in a pipe."""
    text = " ".join(words).encode("utf-8", "replace").decode()
    if quick and not text and not sys.stdin.isatty():
        text = sys.stdin.buffer.read().decode("utf-8", "replace").strip()
    if quick and not text.strip():
        raise click.UsageError("-qq needs a question: ilab model chat -qq QUESTION")
    return text


def _check(loaded: Any) -> None:
    """What was typed is looked at before a model is looked for, which may take minutes. Raises ``InputError`` for an
    unknown context and for a file that is no saved conversation."""
    from ilab.chat.contexts import Contexts
    from ilab.chat.files import read_session

    chat = loaded.config.chat
    Contexts(own=chat.contexts).text(chat.context)
    if chat.session:
        read_session(loaded.path(chat.session))


def _session(loaded: Any, partner: Partner, given: dict[str, Any], retriever: Retriever | None) -> ChatSession:
    from ilab.chat.contexts import Contexts
    from ilab.chat.files import ChatLog
    from ilab.chat.session import ChatSession, Retrieved, Settings
    from ilab.config import data_home

    def retrieve(text: str) -> Retrieved:
        found = retriever.retrieve(text) if retriever else None
        return Retrieved(found.passages, found.citations) if found else Retrieved((), ())

    chat = loaded.config.chat
    logs = loaded.path(chat.logs_dir) if chat.logs_dir else data_home() / "chatlogs"
    session = ChatSession(
        partner.talker,
        Settings(chat.context, given["system"], chat.memory),
        Contexts(partner.system, chat.contexts),
        retrieve=retrieve if retriever else None,
        log=ChatLog(logs),
    )
    if chat.session:
        session.load(loaded.path(chat.session), for_good=True)
    return session


def _as_json(options: Options, session: ChatSession, question: str) -> None:
    answer = "".join(session.ask(question))
    told = {"model": session.talker.name, "question": question, "answer": answer, "notes": session.take_notes()}
    options.result({**told, "citations": list(session.citations)})


@dataclass
class Talk:
    """The conversation, as it is shown on ``screen``."""

    session: ChatSession
    partner: Partner
    screen: Screen

    def greet(self) -> None:
        """Who is there, and what was said before."""
        name = self.session.talker.name
        self.screen.text(f"ilab chat with {Path(name).name.upper() or name}  (/h shows the commands, /q leaves)")
        if self.session.loaded:
            self.screen.replay(self.session.messages)
        if self.session.memory == 0:
            self.screen.note("each question stands alone: the model's context is too short for a conversation")

    def ask(self, question: str) -> bool:
        """Show the answer; whether it came to its end."""
        whole = self.screen.answer(self.session.ask(question), self.session.talker.name)
        for citation in self.session.citations:
            self.screen.text(citation)
        for note in self.session.take_notes():
            self.screen.note(f"note: {note}")
        return whole

    def converse(self, lines: Lines, interactive: bool) -> None:
        """Ask and answer until one leaves. ``interactive``: a mistake is told, and the conversation goes on."""
        from ilab.chat.commands import Commands

        commands = Commands(self.session, self.partner.switch)
        while True:
            try:
                line = lines.read()
            except KeyboardInterrupt:
                return
            if line is None:
                return
            try:
                done = commands.run(line)
                if done is None and not self.ask(line) and not interactive:
                    raise KeyboardInterrupt
                if done is not None and not self._show(done, lines):
                    return
            except IlabError as error:
                if not interactive:
                    raise
                show_error(_plain(error))

    def _show(self, done: Outcome, lines: Lines) -> bool:
        screen, name = self.screen, self.session.talker.name
        show: dict[str, Callable[[], None]] = {
            "text": lambda: screen.text(done.text),
            "box": lambda: screen.box(done.text, name),
            "plain": lambda: screen.plain(done.text),
            "markdown": lambda: screen.markdown(done.text),
            "about": lambda: screen.text(_table(self.partner.about(self.session.talker))),
        }
        if done.kind in show:
            show[done.kind]()
        elif done.kind == "messages":
            screen.replay(done.messages)
            screen.text(done.text)
        elif done.kind == "multiline":
            lines.once = True
        elif done.kind == "multiline-toggle":
            lines.multiline = not lines.multiline
            end = "Esc Enter ends it" if sys.stdin.isatty() else "an empty line ends it"
            screen.text(f"A question has several lines; {end}." if lines.multiline else "A question has one line.")
        return done.kind != "quit"


def _typed(talk: Talk, vi: bool) -> Lines:
    from ilab.chat.commands import COMMANDS
    from ilab.cli.chat_input import TypedLines
    from ilab.config import data_home

    session, partner = talk.session, talk.partner

    def words() -> dict[str, list[str]]:
        known: dict[str, list[str]] = {command.word: [] for command in COMMANDS}
        return {**known, "/c": session.contexts.names, "/a": partner.names(session.talker)}

    files = [command.word for command in COMMANDS if command.takes == "FILE"]
    return TypedLines(data_home() / "chat_history", vi, lambda: f"[{session.context}]", words, files)


def _table(rows: list[tuple[str, str]]) -> str:
    if not rows:
        return "Nothing is known about this model."
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def _plain(error: IlabError) -> IlabError:
    """``error`` with nothing in its words that would steer the terminal: a server may have said them."""
    from ilab.cli.findings import printable

    return InputError(printable(error.message), hint=printable(error.hint), where=printable(error.where))
