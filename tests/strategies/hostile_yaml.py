"""Hypothesis strategies for leaves that nobody should write: mutated, random, torn and made to explode.

``files`` is the strategy of such a file and its place, ``BOMBS`` make files that grow.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from changes import CHARACTERS, TEXT_CHANGES, changed, encoded, insert, on_lines
from hypothesis import strategies as st

SKILL = """\
# Numbers in words
version: 3
created_by: someone
task_description: Say what a number is, in words.
seed_examples:
  - question: What is 1?   # the first
    answer: One.
  - question: 'What is "2"?'
    answer: "Two, or a \\"couple\\"."
  - question: >-
      What is 3, if it
      is written out?
    answer: Three.
  - question: |
      What is four?

      Say it at length.
    answer: |
      Four is
        - two and two
        - three and one
  - {question: 'What is 5?', answer: Five}
"""
GROUNDED = """\
version: 2
created_by: someone
task_description: Take the amount out of a sentence.
seed_examples:
- context: &bill The bill of the 3rd of May is over 12.50 euros.
  question: How much is to be paid?
  answer: 12.50 euros
- context: *bill
  question: On which day was the bill written?
  answer: On the 3rd of May
- context: |2
     Indented, and write to nobody@example.org.
  question: To whom?
  answer: nobody@example.org
- context: 'It''s 7 o''clock: time to go.'
  question: "What time is it?\\nSay it."
  answer: 7 o'clock
- context: Größe, 東京, 🙂 and ∞
  question: Which town?
  answer: 東京
"""
KNOWLEDGE = """\
version: 3
domain: machines
created_by: someone
document_outline: What the kiln of the valley is and does.
seed_examples:
  - context: |
      The kiln stands in the **valley**. It burns at 900 degrees, for two days.

      | part | made of |
      | --- | --- |
      | door | iron |
    questions_and_answers:
      - question: Where does the kiln stand?
        answer: In the valley.
      - question: How hot does it burn?
        answer: At 900 degrees.
      - question: For how long?
        answer: For two days.
  - context: It was built in 1874 by two brothers.
    questions_and_answers: &pairs
      - {question: When was it built?, answer: In 1874.}
      - {question: Who built it?, answer: Two brothers.}
      - {question: How many brothers?, answer: Two.}
  - context: Its door is of iron. It has 2 brothers and was built in 1874.
    questions_and_answers: *pairs
  - context: "The chimney is 12 m high.\\n"
    questions_and_answers:
      - question: How high is the chimney?
        answer: 12 m
      - question: What is 12 m high?
        answer: The chimney
      - question: Is it high?
        answer: Yes, 12 m.
  - context: The last fire was in 1931.
    questions_and_answers:
      - question: When was the last fire?
        answer: "1931"
      - question: What happened in 1931?
        answer: The last fire.
      - question: Was there a fire in 1931?
        answer: yes
document:
  repo: https://example.org/kiln.git
  commit: 5a1c2e7
  patterns:
    - docs/*.md
"""
LOCAL = """\
created_by: someone
task_description: ''
domain: machines
seed_examples:
- question: What burns?
  answer: The kiln
document:
- path: [text.md, 'more/**/*.md']
- path: ../elsewhere/guide.md
- url: https://example.org/kiln.html
- text: |
    # The kiln

    It burns.
"""
DRAFTS = SKILL.replace("  - question: What is 1?", "  - draft: true\n    question: What is 1?") + (
    "  - question: What is 6?\n    answer: Six.\n    draft: true\n  - question: What is 7?\n    answer: Seven.\n"
)
ITEMS = """\
version: 1
items:
  - split: test
    question: Which port does the boat sail from?
    options: [Vellsay, Elmsund, Tavishall]
    answer: Elmsund
    about: boat
  - {split: dev, question: How many?, answer: '14'}
"""
_KEYS = "version created_by task_description domain document_outline seed_examples document repo commit patterns"
_KEYS += " path url text context question answer questions_and_answers draft split items options about kind << = null"
KEYS = tuple(_KEYS.split())
VALUES = (
    *("", "~", "null", "''", '"  "', "5", "1e3", "no", "0x1F", "0o7", "1_0", "12:30:45", "2024-01-01", ".nan", "-.inf"),
    *("[]", "{}", "[[[]]]", "{a: {b: c}}", "- a", "? a", "? [a]", "three", "-1", "9" * 400, "1" + "0" * 5000),
    *("true", "!!str 5", "!!int five", "!!binary aGk=", "!!set {a}", "!!timestamp x", "!local x", "!<tag:x> y", "!"),
    *("!!python/object/apply:os.system [id]", "!!python/name:os.system", "&a x", "*a", "&a [*a]", "*pairs", "*bill"),
    *("|", ">", "|9", ">-\n", "|+\n\n\n", "|\n\ttab", '"', "'", '"\\x41\\u0000\\ud800"', '"\\xzz"', "'it''s'"),
    *(
        "a: b",
        "a: b: c",
        "a #b",
        "#b",
        "@a",
        "`a`",
        "%a",
        "{a",
        "[a",
        "a]",
        "]",
        "}",
        ",",
        ": ",
        "- - - a",
        "a,b",
        "\\",
    ),
    *("https://u:p@example.org/x", "http://127.0.0.1/", "file:///etc/passwd", "/etc/passwd", "../../../x", "~/x"),
    *("C:\\x", "**/../x", "x\\y", "--- ", "... ", "%YAML 9.9", "%TAG ! x", "---\na: b\n---\nc: d", "<<: *a"),
)


def _value(lines: list[str], at: int, much: int) -> None:
    head, colon, _ = lines[at].partition(":")
    lines[at] = f"{head}{colon or ':'} {VALUES[much % len(VALUES)]}"


def _key(lines: list[str], at: int, much: int) -> None:
    head, colon, tail = lines[at].partition(":")
    lines[at] = head[: len(head) - len(head.lstrip(" -"))] + KEYS[much % len(KEYS)] + (colon or ":") + tail


def _line(lines: list[str], at: int, much: int) -> None:
    lines.insert(at, " " * (much % 3 * 2) + VALUES[much // 3 % len(VALUES)])


def _flatten(text: str, where: int, much: int) -> str:
    return text.replace("    ", "  ") if much % 2 else text.replace("\n  ", "\n")


CHANGES = (*TEXT_CHANGES, *map(on_lines, (_value, _value, _key, _key, _line)), _flatten, insert(VALUES))
_SKILLS = changed((SKILL, GROUNDED, DRAFTS), CHANGES, most=3)
_KNOWLEDGE = changed((KNOWLEDGE, LOCAL), CHANGES, most=3)
_ITEMS = changed((ITEMS,), CHANGES, most=3)
_SCALARS = st.sampled_from(VALUES) | st.text(st.sampled_from(CHARACTERS + "ab "), max_size=8)


def _block(value: object, depth: int) -> str:
    """Block style without regard for what needs quotes."""
    pad = "  " * depth
    if isinstance(value, dict):
        return "".join(f"\n{pad}{key}: {_block(item, depth + 1)}" for key, item in value.items())
    if isinstance(value, list):
        return "".join(f"\n{pad}- {_block(item, depth + 1).lstrip()}" for item in value)
    return str(value)


def _written(value: object, flow: bool) -> str:
    return json.dumps(value, ensure_ascii=False) if flow else _block(value, 0).lstrip("\n") + "\n"


_TREES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=12,
)
structural = st.builds(_written, _TREES, st.booleans())
_TOKENS = (
    b"\n",
    b"  ",
    b": ",
    b"- ",
    b"? ",
    b"{",
    b"]",
    b"&a ",
    b"*a",
    b"|\n",
    b"\xff\xfe",
    b"\x00",
    b"\xc3",
    b"\xf0\x9f",
)
torn = st.lists(st.sampled_from(_TOKENS) | st.binary(max_size=6), max_size=30).map(b"".join)

BOMBS: dict[str, Callable[[int], str]] = {
    "a billion laughs": lambda n: "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'ha'] * 9)}]\n" for i in range(n)
    ),
    "laughs in mappings": lambda n: "".join(
        f"a{i}: &a{i} {{{', '.join(f'b{j}: *a{i - 1}' if i else f'b{j}: ha' for j in range(9))}}}\n" for i in range(n)
    ),
    "laughs in keys": lambda n: "".join(
        f"? &a{i} [{', '.join([f'*a{i - 1}' if i else 'ha'] * 9)}]\n: x\n" for i in range(n)
    ),
    "merged mappings": lambda n: "".join(
        f"a{i}: &a{i}\n  <<: [{', '.join([f'*a{i - 1}'] * 9 if i else ['{}'])}]\n  k{i}: v\n" for i in range(n)
    ),
    "an alias of itself": lambda n: "seed_examples: &a\n" + "- *a\n" * n,
    "one anchor again and again": lambda n: "- &a x\n- *a\n" * n,
    "a long anchor": lambda n: f"a: &{'a' * n} x\nb: *{'a' * n}\n",
    "deep brackets": lambda n: "[" * n,
    "deep closed brackets": lambda n: "[" * n + "]" * n,
    "deep braces": lambda n: "{a: " * n + "}" * n,
    "deep lists": lambda n: "- " * n + "a",
    "deep keys": lambda n: "? " * n + "a",
    "deep blocks": lambda n: "".join(f"{' ' * i}a:\n" for i in range(min(n, 2000))),
    "keys that are many": lambda n: "".join(f"k{i}: v\n" for i in range(n)),
    "keys that are the same": lambda n: "version: 3\n" * n,
    "keys that nearly are": lambda n: "".join(f"seed_example{i}: v\n" for i in range(n)),
    "entries that are the same": lambda n: "version: 3\nseed_examples:\n" + "- {question: a, answer: b}\n" * n,
    "entries without anything": lambda n: "version: 3\nseed_examples:\n" + "-\n" * n,
    "a number": lambda n: f"version: {'9' * n}\n",
    "a number of minutes": lambda n: f"version: {'1:' * n}1\n",
    "a word": lambda n: f"created_by: {'a' * n}\n",
    "blanks": lambda n: f"created_by: a{' ' * n}b\n",
    "blank lines": lambda n: f"created_by: a{chr(10) * n}  b\n",
    "lines of blanks": lambda n: f"created_by: a\n{(' ' * 30 + chr(10)) * n}",
    "tabs": lambda n: f"created_by: a\n{chr(9) * n}\n",
    "comments": lambda n: "#\n" * n,
    "quotes": lambda n: "'" * n,
    "escapes": lambda n: f'"{chr(92) * n}"',
    "documents": lambda n: "---\n" * n,
    "directives": lambda n: "%a b\n" * n + "---\na: b\n",
    "tags": lambda n: "!a " * n,
    "addresses": lambda n: f"a: {'a@' * n}\n",
    "many addresses": lambda n: SKILL.replace("Three.", "a@b" + ".c-" * n),
    "many figures": lambda n: SKILL.replace("Three.", "+1 " * n),
    "many capitals": lambda n: SKILL.replace("Three.", "AB12 " * n),
    "a pattern": lambda n: LOCAL.replace("text.md", "*" * n + "/a"),
    "a pattern of folders": lambda n: LOCAL.replace("text.md", "**/" * n + "a"),
    "a pattern that goes up": lambda n: LOCAL.replace("text.md", "../" * n + "a"),
    "words that repeat": lambda n: KNOWLEDGE.replace("The last fire", "fire " * n),
    "questions that are many": lambda n: (
        SKILL + "".join(f"  - {{question: What is {i} {i}?, answer: It is {i}}}\n" for i in range(n))
    ),
}
_SMALL = st.builds(lambda name, n: BOMBS[name](n), st.sampled_from(sorted(BOMBS)), st.integers(0, 300))

_NEW = "compositional_skills/a/"
_AT = {
    _SKILLS: (f"{_NEW}qna.yaml", "foundational_skills/a/b/qna.yaml", "qna.yaml"),
    _KNOWLEDGE: ("knowledge/a/qna.yaml", "qna.yaml"),
    _ITEMS: (f"{_NEW}eval.yaml",),
}
_ANYWHERE = st.sampled_from([*sorted({name for names in _AT.values() for name in names}), f"{_NEW}attribution.txt"])
_RIGHT = [st.tuples(encoded(texts), st.sampled_from(names)) for texts, names in _AT.items()]
_ODD = encoded(st.one_of(_SKILLS, _KNOWLEDGE, structural, structural, _SMALL)) | torn

files: st.SearchStrategy[tuple[bytes, str]] = st.one_of(*_RIGHT, *_RIGHT, st.tuples(_ODD, _ANYWHERE))
"""The bytes of one hostile file, and where it lies: mostly where it would belong, were it right."""
