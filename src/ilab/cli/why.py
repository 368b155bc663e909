"""``ilab why``: the samples, passages and leaf behind an answer, and why it is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ilab.cli.app import Options


@click.command(name="why")
@click.argument("question")
@click.option("--ask", is_flag=True, help="Ask the model now, too: for questions that no held-out item asks.")
@click.option("--model", metavar="DIR", help="The model to ask.  [default: what the last build chose]")
@click.option("--max-tokens", type=click.IntRange(1), default=200, show_default=True, help="Longest answer.")
@click.option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N, mps.  [config: where.device]")
@click.pass_obj
def group(options: Options, question: str, ask: bool, model: str | None, max_tokens: int, device: str | None) -> None:
    """What stands behind the answer to QUESTION: samples, passages, the leaf and who wrote it, and why it is wrong.

    Everything comes from the project's last build (`-C DIR` for another project). If one of the held-out questions
    asks the same, what each model answered is told as well.
    """
    from ilab.inquiry import asked, inquire, last_results
    from ilab.transfer.stores import open_store

    loaded = options.load(where__device=device)
    results = last_results(open_store(loaded))
    said: dict[str, str] = {}
    if ask or model:
        from ilab.cli.compare import answers
        from ilab.outcome import model_to_use

        folder, name = model_to_use(loaded, model, options.directory)
        said = {name: answers(loaded, {name: folder}, [asked(question)], max_tokens)[name][0]}
    told = inquire(results, question, loaded.base, said)
    if options.as_json:
        options.result(told)
    else:
        click.echo("\n".join(_lines(told, asked=bool(said))))


def _lines(told: Mapping[str, Any], asked: bool) -> list[str]:
    """The findings as text, what matters most first."""
    lines = _answer_lines(told)
    if told["diagnosis"]:
        lines += ["", *_diagnosis_lines(told["diagnosis"])]
    if not told["samples"] and not told["passages"]:
        return [*lines, "", *_nothing_lines(told)]
    lines += ["", *_sample_lines(told)]
    for passage in told["passages"]:
        lines += ["", *_passage_lines(passage)]
    lines += ["", *_leaf_lines(told["leaf"])]
    if not told["answers"] and not asked:
        lines += [
            "",
            _printable(f'no held-out question asks this. What the model says: ilab why --ask "{told["question"]}"'),
        ]
    return lines


def _answer_lines(told: Mapping[str, Any]) -> list[str]:
    lines = [click.style(_printable(told["question"]), bold=True)]
    item = told["item"]
    if item:
        if item["context"]:
            lines.append(_printable(f"  about         {item['context']}"))
        if item["options"]:
            lines.append(_printable(f"  to choose     {', '.join(item['options'])}"))
        lines.append(_printable(f"  right answer  {item['gold']}"))
    for model, one in told["answers"].items():
        sign = {True: click.style("✓", fg="green"), False: click.style("✗", fg="red"), None: " "}[one["right"]]
        lines.append(f"{sign} {_printable(f'{model:<12}')}  {_printable(one['answer'] or '(nothing)')}")
    if item and item["split"] == "dev" and not told["answers"]:
        lines.append("  a dev question: it chose checkpoints, the final evaluation does not ask it")
    return lines


def _diagnosis_lines(found: Mapping[str, Any]) -> list[str]:
    return [
        f"{click.style(found['cause'], fg='yellow', bold=True)}: {_printable(found['because'])}",
        f"  -> {_printable(found['advice'])}",
    ]


def _sample_lines(told: Mapping[str, Any]) -> list[str]:
    if not told["samples"]:
        return ["No sample is about it."]
    lines = ["Samples about it:"]
    for sample in told["samples"]:
        says = f"  <- {' and '.join(sample['says'])}" if sample["says"] else ""
        lines.append(_printable(f"  Q: {_short(sample['question'])}"))
        lines.append(_printable(f"  A: {_short(sample['answer'])}{says}"))
        lines.append(click.style(_printable(f"     {sample['id']} (by {sample['by']})"), dim=True))
    return [*lines, _printable(f"  the whole history of one: ilab data why '{told['samples'][0]['id']}'")]


def _passage_lines(passage: Mapping[str, Any]) -> list[str]:
    page = f", page {passage['page']}" if passage["page"] else ""
    heading = f", {' > '.join(passage['heading'])}" if passage["heading"] else ""
    span = "–".join(str(end) for end in passage["span"])
    title = f"Passage {passage['source']}{page}{heading}, characters {span}:"
    return [_printable(title), *(_marked(line) for line in passage["passage"].splitlines() if line.strip())]


def _marked(line: str) -> str:
    """A line of a passage; what stands between ⟦ and ⟧ in bold, the signs kept for who sees no bold."""
    return f"  {_printable(line)}".replace("⟦", "\x1b[1m⟦").replace("⟧", "⟧\x1b[0m")


def _leaf_lines(leaf: Mapping[str, Any]) -> list[str]:
    lines = [_printable(f"Leaf {leaf['path']}")]
    if leaf["file"]:
        line = (leaf["place"] or "").rsplit(":", 2)[1:2]
        lines.append(_printable(f"  {leaf['file']}{':' + line[0] if line else ''}"))
    elif leaf["place"]:
        lines.append(_printable(f"  {leaf['place']}"))
    if leaf["author"]:
        lines.append(_printable(f"  last changed by {leaf['author']} on {leaf['date']}, commit {leaf['commit'][:8]}"))
    elif leaf["commit"]:
        lines.append(_printable(f"  of {leaf['taxonomy']} at commit {leaf['commit'][:8]}"))
    return lines


def _nothing_lines(told: Mapping[str, Any]) -> list[str]:
    lines = ["Nothing found: no sample and no passage of the last build is about this."]
    if told["nearest"]:
        lines.append("The nearest leaves:")
        lines += [_printable(f"  {leaf}") for leaf in told["nearest"]]
    return [*lines, "To teach it, write it into one of them, or begin a new one: ilab taxonomy new knowledge/PATH"]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 160 else f"{line[:159]}…"


def _printable(text: str) -> str:
    from ilab.cli.findings import printable

    return printable(text)
