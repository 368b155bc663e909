"""The conversation itself: what is kept, what is sent, what fits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilab.chat.contexts import Contexts
from ilab.chat.files import ChatLog, read_session
from ilab.chat.fitting import QUOTED, Question, TooLarge, exchanges_of, fit, most_tokens
from ilab.chat.session import ChatSession, Retrieved, Settings
from ilab.chat.talkers import LocalTalker
from ilab.chat.untrusted import neutral
from ilab.data import Message
from ilab.errors import InputError, ServiceError
from ilab.models.local import LocalModel, Sampling
from ilab.models.window import TooLong


class Echo:
    """Says what it was asked, and keeps what it was given. A word is a token; it counts and refuses as told."""

    name, max_tokens = "echo", None

    def __init__(
        self, window: int | None = None, error: Exception | None = None, refuses_above: int | None = None
    ) -> None:
        self.window, self.error, self.refuses_above = window, error, refuses_above
        self.given: list[Sequence[Message]] = []

    def count(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content.split()) for message in messages)

    def stream(self, messages: Sequence[Message]) -> Iterator[str]:
        self.given.append(messages)
        tokens = self.count(messages)
        if self.refuses_above is not None and tokens > self.refuses_above:
            raise TooLong("context length", prompt=tokens, window=self.refuses_above + 1)
        yield "you said "
        if self.error:
            raise self.error
        yield messages[-1].content

    def sent(self) -> list[str]:
        return [message.content for message in self.given[-1]]


def said(session: ChatSession) -> list[str]:
    return [message.content for message in session.messages]


def ask(session: ChatSession, *questions: str) -> None:
    for question in questions:
        list(session.ask(question))


def test_the_conversation_is_kept_and_forgotten() -> None:
    talker = Echo()
    session = ChatSession(talker, Settings(system="Be brief."))
    ask(session, "one", "two")
    assert talker.sent() == ["Be brief.", "one", "you said one", "two"]
    session.new()
    assert said(session) == ["Be brief."]


@pytest.mark.parametrize(
    ("memory", "sent"), [(0, ["S", "three"]), (1, ["S", "two", "you said two", "three"]), (9, None), (None, None)]
)
def test_memory(memory: int | None, sent: list[str] | None) -> None:
    talker = Echo()
    session = ChatSession(talker, Settings(system="S", memory=memory))
    ask(session, "one", "two", "three")
    everything = ["S", "one", "you said one", "two", "you said two", "three"]
    assert talker.sent() == (sent or everything)
    assert said(session) == [*everything, "you said three"]
    assert session.take_notes() == []  # what nobody wanted sent is not missed


def test_a_model_of_a_short_context_is_asked_one_question_at_a_time() -> None:
    assert (ChatSession(Echo(512)).memory, ChatSession(Echo(4096)).memory, ChatSession(Echo()).memory) == (
        0,
        None,
        None,
    )
    assert ChatSession(Echo(512), Settings(memory=3)).memory == 3


def test_an_answer_that_is_broken_off_is_kept_and_one_that_failed_is_not() -> None:
    session = ChatSession(Echo())
    answer = session.ask("long story")
    next(answer)
    answer.close()
    assert said(session) == ["long story", "you said "]
    failing = ChatSession(Echo(error=ServiceError("gone")))
    with pytest.raises(ServiceError):
        ask(failing, "x")
    assert failing.messages == ()
    interrupted = ChatSession(Echo(error=KeyboardInterrupt()))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        ask(interrupted, "x")
    assert said(interrupted) == ["x", "you said "]


def test_the_oldest_go_first_and_the_system_prompt_never() -> None:
    talker = Echo(window=2000, refuses_above=None)
    session = ChatSession(talker, Settings(system="be brief", memory=99))
    ask(session, *(f"{word} " * 400 for word in ("one", "two", "three")))  # with the answers 2,400 words and more
    assert session.take_notes() == [
        "the oldest question and its answer no longer fit into the context of 2,000 tokens: they are not sent any more"
    ]
    assert talker.sent()[0] == "be brief"
    assert [text.split()[-1] for text in talker.sent()[1:]] == ["two", "two", "three"]
    ask(session, "four " * 400)
    assert [text.split()[-1] for text in talker.sent()[1:]] == ["three", "three", "four"]
    assert session.take_notes() == []  # told once
    assert len(session.messages) == 9  # and all of it is still there to be saved


def test_a_message_that_is_too_large_is_refused_before_it_is_sent() -> None:
    talker = Echo(window=100)
    session = ChatSession(talker, Settings(system="be brief"))
    with pytest.raises(TooLarge, match=r"^Message too large for context size\.") as caught:
        ask(session, "word " * 90)
    assert "it has 92 tokens, and 75 fit" in caught.value.hint
    assert talker.given == [] and said(session) == ["be brief"]
    ask(session, "word " * 73)  # with the system prompt just what fits


def test_a_server_that_says_too_long_is_asked_with_less() -> None:
    talker = Echo(refuses_above=1000)  # it tells of no window before
    session = ChatSession(talker, Settings(system="be brief"))
    ask(session, *(f"{number} " * 150 for number in range(5)))
    assert talker.count(talker.given[-1]) <= 1000
    assert talker.sent()[0] == "be brief"
    assert len(session.take_notes()) == 1
    with pytest.raises(TooLarge, match="too large for context size") as caught:
        ask(session, "word " * 1200)
    assert "1,202 tokens, and 1,000 fit" in caught.value.hint


def test_passages_go_before_the_question_and_are_not_kept() -> None:
    talker = Echo(window=2000)
    passages = ("the tower is 34 metres tall", "far " * 2500)
    session = ChatSession(talker, retrieve=lambda text: Retrieved(passages, ("[1] towers.md:3", "[2] far.md:1")))
    ask(session, "how tall?")
    assert talker.sent() == [f"{QUOTED}\n\n[1] the tower is 34 metres tall\n\nhow tall?"]
    assert session.citations == ("[1] towers.md:3",)
    assert session.take_notes() == ["1 of the passages that were found did not fit into the context"]
    assert said(session)[0] == "how tall?"


words = st.integers(0, 40).map(lambda count: "w " * count)


@given(st.lists(st.tuples(words, words), max_size=8), words, words, st.integers(1, 200), st.integers(0, 3))
def test_all_that_fits_is_sent_and_no_more(
    before: list[tuple[str, str]], system: str, question: str, most: int, skip: int
) -> None:
    def count(messages: Sequence[Message]) -> int:
        return sum(len(message.content.split()) for message in messages)

    messages = [Message(role="system", content=system)]
    for asked, answered in before:
        messages += [Message(role="user", content=asked), Message(role="assistant", content=answered)]
    alone = count([messages[0], Message(role="user", content=question)])
    if alone > most:
        with pytest.raises(TooLarge):
            fit(messages, Question(question), count, most, skip)
        return
    fitted = fit(messages, Question(question), count, most, skip)
    assert count(fitted.messages) <= most
    assert fitted.messages[0].content == system and fitted.messages[-1].content == question
    assert list(fitted.messages[1:-1]) == messages[1 + 2 * fitted.exchanges :]
    if fitted.exchanges > min(skip, len(before)):  # one more would have been too many
        assert count([messages[0], *messages[2 * fitted.exchanges - 1 :], fitted.messages[-1]]) > most


def test_room_for_an_answer() -> None:
    assert [most_tokens(window, None) for window in (25, 128, 4096)] == [19, 96, 4032]
    assert [most_tokens(4096, limit) for limit in (1, 12, 999)] == [4095, 4084, 4032]


def test_exchanges_begin_with_questions() -> None:
    roles = ("system", "assistant", "user", "assistant", "user")
    messages = [Message(role=role, content=str(at)) for at, role in enumerate(roles)]  # type: ignore[arg-type]
    assert [[message.content for message in one] for one in exchanges_of(messages)] == [["1"], ["2", "3"], ["4"]]


def test_a_model_in_this_process_counts_as_it_reads(local: LocalModel) -> None:
    talker = LocalTalker(local, Sampling(max_tokens=12), "tiny")
    session = ChatSession(talker, Settings(memory=99))
    ask(session, *(f"How many locks has canal {number}?" for number in range(12)))
    sent = list(session.messages[-4:])
    assert talker.count(sent) == len(local.renderer.prompt_ids(sent))
    assert len(session.take_notes()) == 1  # 12 questions are more than 256 tokens
    with pytest.raises(TooLarge, match="too large") as caught:
        ask(session, "東京" * 200)
    tokens = talker.count([Message(role="user", content="東京" * 200)])
    assert f"{tokens:,} tokens, and 244 fit" in caught.value.hint


def test_drawn_answers_differ_and_can_be_had_again(local: LocalModel) -> None:
    def answers() -> list[str]:
        session = ChatSession(LocalTalker(local, Sampling(max_tokens=12, temperature=1.5)), Settings(memory=0))
        return ["".join(session.ask("How many locks?")) for _ in range(3)]

    first = answers()
    assert len(set(first)) > 1 and first == answers()


def test_contexts() -> None:
    contexts = Contexts("Trained so.", {"pirate": "Talk like a pirate.", "cli_helper": "Mine."})
    session = ChatSession(Echo(), contexts=contexts)
    assert said(session) == ["Trained so."]
    ask(session, "one")
    session.switch_context("pirate")
    assert (session.context, said(session)) == ("pirate", ["Talk like a pirate."])
    session.switch_context("cli_helper")
    assert said(session) == ["Mine."]
    with pytest.raises(InputError, match="no context 'pirat'") as caught:
        session.switch_context("pirat")
    assert "did you mean 'pirate'" in caught.value.hint and session.context == "cli_helper"
    with pytest.raises(InputError, match="no context 'x'"):
        ChatSession(Echo(), Settings(context="x"))
    assert Contexts().text("default") == ""


def test_what_is_loaded_for_good_comes_back(tmp_path: Path) -> None:
    first = ChatSession(Echo(), Settings(system="S"))
    ask(first, "Größe?")
    file = tmp_path / "my chat.json"
    first.save(file)
    assert json.loads(file.read_text()) == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Größe?"},
        {"role": "assistant", "content": "you said Größe?"},
    ]
    assert file.read_text().startswith('[\n    {\n        "role"')
    session = ChatSession(Echo())
    session.load(file)
    session.new()
    assert session.messages == ()
    session.load(file, for_good=True)
    ask(session, "more")
    session.new()
    assert session.messages == first.messages
    session.new(wholly=True)
    assert session.messages == ()


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    session = ChatSession(Echo())
    ask(session, "x")
    notes = tmp_path / "notes.txt"
    notes.write_text("precious")
    for use in (session.save, session.load):
        with pytest.raises(InputError, match="no saved conversation"):
            use(notes)
    assert notes.read_text() == "precious"
    with pytest.raises(InputError, match="cannot be read"):
        session.load(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be written"):
        session.save(notes / "x.json")


def test_the_log_can_be_gone_on_with_whatever_ended_the_chat(tmp_path: Path) -> None:
    log = ChatLog(tmp_path / "logs", now=lambda: 0.0)
    session = ChatSession(Echo(), Settings(system="S"), log=log)
    assert not (tmp_path / "logs").exists()  # nothing was said yet
    ask(session, "one")
    session.new()
    ask(session, "zwei 東京 🙂")
    assert log.path is not None and log.path.name.startswith("chat_19") and log.path.stat().st_mode & 0o077 == 0
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [(line["role"], line.get("begins", False)) for line in lines] == [
        ("system", True), ("user", False), ("assistant", False),
        ("system", True), ("user", False), ("assistant", False),
    ]  # fmt: skip
    assert lines[2]["model"] == "echo" and lines[2]["time"].startswith("19")
    assert read_session(log.path) == list(session.messages)
    log.path.write_bytes(log.path.read_bytes()[:-9])  # as a power cut leaves it
    assert read_session(log.path) == list(session.messages)[:-1]
    other = ChatLog(tmp_path / "logs", now=lambda: 0.0)
    other.add(Message(role="user", content="in the same second"))
    assert other.path != log.path


@given(st.text(alphabet=st.characters(max_codepoint=0x2100) | st.characters(categories=["Cc", "Cf", "Cs"])), st.data())
def test_nothing_that_steers_a_terminal_is_left(text: str, data: st.DataObject) -> None:
    shown = neutral(text)
    assert all(sign in "\n\t" or sign.isprintable() or ord(sign) >= 0xA0 for sign in shown)
    assert not any(sign in shown for sign in "\x1b\x9b\r\x08\u202e\u2066")
    shown.encode()
    cut = data.draw(st.integers(0, len(text)))
    assert neutral(text[:cut]) + neutral(text[cut:]) == shown
    assert neutral("Größe\t東京 🙂\n") == "Größe\t東京 🙂\n"
