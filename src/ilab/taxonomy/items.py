"""Held-out questions that people wrote: ``eval.yaml`` beside ``qna.yaml``.

    version: 1
    items:
      - split: test            # or dev
        question: Which port does the supply boat sail from?
        options: [Vellsay, Elmsund, Tavishall, Harrowby]     # makes it kind: mcq; otherwise exact
        answer: Tavishall
        about: supply boat     # optional: questions about one thing are counted as one cluster
      - split: test
        question: Who painted the supply boat?
        unanswerable: true     # the documents do not say: the right answer is that one does not know

An item's id is a hash of its content, so adding or moving questions changes no other item.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from ilab.core.step import canonical
from ilab.data import Item, ItemKind, Split, digest_text, short
from ilab.errors import InputError
from ilab.taxonomy.check import check
from ilab.taxonomy.yamlfaults import problem
from ilab.taxonomy.yamlnodes import START, MappingNode, Node, SequenceNode, is_true, load, optional_text, text

UNKNOWN = "The text does not say."  # the answer of an unanswerable question that brings none


def read_items(path: Path, file: str, leaf: str, problems: list[InputError]) -> tuple[Item, ...]:
    """The items of the leaf named ``leaf``, in the file's order; mistakes are added to ``problems``."""
    found: list[InputError] = []
    try:
        node = load(path, file, found)
        if node is None:
            raise problem(file, START, "is empty", "write questions, or remove the file")
    except InputError as error:
        problems.append(error)
        return ()
    check(node, "eval", file, found)
    entries = node.get("items") if isinstance(node, MappingNode) else None
    if found or not isinstance(entries, SequenceNode):
        problems += found
        return ()
    items: dict[str, Item] = {}
    asked: dict[tuple[str, str | None], int] = {}
    for index, entry in enumerate(entries.items):
        item = _item(entry, file, leaf, found)
        first = asked.setdefault((item.question, item.context), index)
        if first != index:
            message = f"asks the same question as line {entries.items[first].line}"
            found.append(problem(file, entry, message, "change or remove one of the two"))
        while item.id in items:  # two of a few thousand items may share a short hash
            item = item.model_copy(update={"id": f"{item.id}-2"})
        items[item.id] = item
    problems += found
    return tuple(items.values())


def _item(node: Node, file: str, leaf: str, problems: list[InputError]) -> Item:
    node = cast(MappingNode, node)  # the schema has been checked
    listed = node.get("options")
    options = tuple(text(option) for option in listed.items) if isinstance(listed, SequenceNode) else ()
    unanswerable = is_true(node.get("unanswerable"))
    usual = "free" if unanswerable else "mcq" if options else "exact"
    kind = cast(ItemKind, text(node.get("kind")) or usual)
    question, context = text(node.get("question")), optional_text(node.get("context"))
    gold = text(node.get("answer")) or (UNKNOWN if unanswerable else "")
    if unanswerable and (kind != "free" or options):
        message = "an unanswerable question has no options, and is of kind `free`"
        problems.append(problem(file, node, message, "remove `options` and `kind`"))
    if kind == "mcq" and not options:
        problems.append(problem(file, node, "an item of kind `mcq` needs `options`", "add `options: [a, b, c, d]`"))
    elif kind != "mcq" and options:
        message = f"an item of kind `{kind}` has no options"
        problems.append(problem(file, listed or node, message, "remove them, or write `kind: mcq`"))
    elif options and gold not in options:
        message = f"the answer `{gold[:80]}` is not among the options"
        problems.append(problem(file, node.get("answer") or node, message, "spell it exactly as the option"))
    identity = f"{leaf}/eval/{short(digest_text(canonical([question, context, options, gold])))}"
    about = text(node.get("about"))
    return Item(
        id=identity,
        leaf=leaf,
        split=cast(Split, text(node.get("split"))),
        kind=kind,
        question=question,
        context=context,
        options=options,
        gold=gold,
        cluster=f"{leaf}/{about}" if about else identity,
        unanswerable=unanswerable,
    )
