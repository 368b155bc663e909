"""The conversation: what was said, what of it the model is sent, what begins anew and with what.

``ask`` gives the answer piece by piece. Question and answer are kept once there is an answer; one that the caller
breaks off is kept as far as it came; after an error the conversation is as before. What did not fit into the model's
context is told once, by ``take_notes``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ilab.chat.contexts import DEFAULT, Contexts
from ilab.chat.files import ChatLog, read_session, write_session
from ilab.chat.fitting import Fitted, Question, TooLarge, exchanges_of, fit, most_tokens
from ilab.chat.talkers import Talker, memory_of
from ilab.data import Message
from ilab.models.window import TooLong


@dataclass(frozen=True)
class Retrieved:
    """What was found for a question: ``passages`` go before it, numbered from 1, the best first; ``citations`` say
    where each is from, in the same order, and are shown after the answer."""

    passages: tuple[str, ...] = ()
    citations: tuple[str, ...] = ()


Retrieve = Callable[[str], Retrieved]


@dataclass(frozen=True)
class Settings:
    """``system`` is a system prompt in place of the context's; ``memory`` how many earlier exchanges go along with a
    question (None: see :func:`~ilab.chat.talkers.memory_of`)."""

    context: str = DEFAULT
    system: str = ""
    memory: int | None = None


class ChatSession:
    """One conversation with ``talker``. ``retrieve`` looks for passages; they are sent with their question and not
    kept. Raises ``InputError`` for an unknown context."""

    def __init__(
        self,
        talker: Talker,
        settings: Settings = Settings(),
        contexts: Contexts | None = None,
        *,
        retrieve: Retrieve | None = None,
        log: ChatLog | None = None,
    ) -> None:
        self.talker = talker
        self.contexts = contexts or Contexts()
        self.context = settings.context
        self.citations: tuple[str, ...] = ()  # of the last answer
        self.loaded = False  # whether /n goes back to a loaded conversation
        self._memory = settings.memory
        self._system = settings.system
        self._retrieve = retrieve
        self._log = log
        self._notes: list[str] = []
        self._told = False  # that something was left out
        self._logged = False  # whether the log has the beginning of this conversation
        self._begin = self._fresh()
        self.messages = self._begin

    @property
    def answers(self) -> list[str]:
        """All answers so far, the last first."""
        return [message.content for message in reversed(self.messages) if message.role == "assistant"]

    @property
    def memory(self) -> int | None:
        """How many earlier exchanges go along with a question; None: all that fit."""
        return self._memory if self._memory is not None else memory_of(self.talker.window)

    def ask(self, text: str) -> Generator[str, None, None]:
        """The answer, piece by piece. Raises :class:`TooLarge` for a question that does not fit into the context, and
        whatever the talker raises."""
        found = self._retrieve(text) if self._retrieve else Retrieved()
        self.citations = ()
        question = Message(role="user", content=text)
        said: list[str] = []
        try:
            for piece in self._stream(Question(text, found.passages), found.citations):
                said.append(piece)
                yield piece
        except (GeneratorExit, KeyboardInterrupt):
            if said:
                self._keep(question, said)
            raise
        self._keep(question, said)

    def take_notes(self) -> list[str]:
        """What the last question's asker should know; each is told once."""
        notes, self._notes = self._notes, []
        return notes

    # -- beginning anew -------------------------------------------------------------------------------------------

    def new(self, *, wholly: bool = False) -> None:
        """A new conversation: from what was loaded for good, or ``wholly`` from the context's system prompt alone."""
        if wholly:
            self._begin, self.loaded = self._fresh(), False
        self._start(self._begin)

    def switch_context(self, name: str) -> None:
        """A new conversation under another system prompt. Raises ``InputError`` for an unknown one."""
        self.contexts.text(name)
        self.context, self._system = name, ""
        self.new(wholly=True)

    def load(self, path: Path, *, for_good: bool = False) -> None:
        """Go on with a saved conversation, its system message included; ``for_good``: ``new`` comes back to it."""
        messages = tuple(read_session(path))
        if for_good:
            self._begin, self.loaded = messages, True
        self._start(messages)

    def save(self, path: Path) -> None:
        """Write a session file; see :func:`~ilab.chat.files.write_session`."""
        write_session(path, self.messages)

    def _fresh(self) -> tuple[Message, ...]:
        system = self._system or self.contexts.text(self.context)
        return (Message(role="system", content=system),) if system else ()

    def _start(self, messages: tuple[Message, ...]) -> None:
        self.messages = messages
        self._told = self._logged = False

    # -- one question ---------------------------------------------------------------------------------------------

    def _stream(self, question: Question, citations: tuple[str, ...]) -> Iterator[str]:
        """The pieces of the answer. Where the server says that the prompt is too long, with less and less before it."""
        window = self.talker.window
        most = most_tokens(window, self.talker.max_tokens) if window else None
        before = len(exchanges_of(self.messages))
        wanted = before if self.memory is None else min(before, self.memory)
        found, skip = len(question.passages), before - wanted
        while True:
            fitted = fit(self.messages, question, self.talker.count if most else None, most, skip)
            begun = False
            try:
                for piece in self.talker.stream(fitted.messages):
                    if not begun:
                        begun = True
                        sent = len(question.passages) - fitted.passages
                        self.citations = citations[:sent]
                        self._note(fitted.exchanges - (before - wanted), found - sent)
                    yield piece
                return
            except TooLong as refusal:
                if begun:
                    raise
                question, skip = _less(fitted, question, before, refusal)

    def _note(self, exchanges: int, passages: int) -> None:
        """Say what was left out of the question just sent; of earlier exchanges only the first time."""
        if exchanges and not self._told:
            self._told = True
            what = "oldest question and its answer" if exchanges == 1 else f"{exchanges} oldest questions with answers"
            window = f" of {self.talker.window:,} tokens" if self.talker.window else ""
            self._notes.append(f"the {what} no longer fit into the context{window}: they are not sent any more")
        if passages:
            self._notes.append(f"{passages} of the passages that were found did not fit into the context")

    def _keep(self, question: Message, said: Sequence[str]) -> None:
        answer = Message(role="assistant", content="".join(said))
        before, self.messages = self.messages, (*self.messages, question, answer)
        if self._log is None:
            return
        logged = [question] if self._logged else [*before, question]
        for number, message in enumerate(logged):
            self._log.add(message, begins=not self._logged and number == 0)
        self._log.add(answer, self.talker.name)
        self._logged = True


def _less(fitted: Fitted, question: Question, before: int, refusal: TooLong) -> tuple[Question, int]:
    """The question, and how many of ``before`` exchanges to leave out, after the server refused ``fitted``: half of the
    exchanges are left, then half of the passages. Raises :class:`TooLarge` where nothing is left."""
    left = before - fitted.exchanges
    if left:
        return question, before - left // 2
    if sent := len(question.passages) - fitted.passages:
        return Question(question.text, question.passages[: sent // 2]), before
    raise TooLarge(refusal.prompt, refusal.window - 1 if refusal.window else None) from refusal
