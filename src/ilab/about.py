"""What a model was made from, and how well it does: what stands behind ``/about`` in a chat.

    model ──▶ its step in the store ──▶ taxonomy, base, samples, trainings ──▶ the gate and the scores of this model
      └─────▶ the papers in its folder (lineage.json, gate.json, evaluation.json), for one that came from elsewhere

Everything is read from records and papers; nothing is measured. A paper that makes no sense is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from ilab.artifacts import Package, Report
from ilab.core.files import read_json, read_records
from ilab.core.store import RECORD, RecordFile, Store
from ilab.data import TrainingRow
from ilab.evaluation.summary import summary_rows

Facts = dict[str, Any]
LARGEST = 16 << 20  # bytes of a paper
ROWS = 500  # of a dataset that are looked at for its system prompt


def about(store: Store | None, model: Path) -> Facts:
    """The facts of the model at ``model``, as JSON; empty for one of which nothing is known.

    ``taxonomy`` (locator, revision, leaves), ``base``, ``samples`` (count, teacher), ``trained`` (a line for each
    phase), ``gate`` (its line), ``scores`` (name and figure of each leaf and the total), ``package`` (name, version,
    digest). What is not known is left out.
    """
    own = _record_of(store, model) if store else None
    return _of_store(store, own) if store and own else _of_papers(model)


def system_prompt(store: Store, model: Path) -> str:
    """The system prompt that the model was trained with; empty for none, or where the store does not know."""
    own = _record_of(store, model)
    if own is None:
        return ""
    for record in reversed(_history(_by_key(store), own)):
        if record.type == "mix":
            counted: dict[str, int] = {}
            for row in islice(read_records(store.contents(record) / "train.jsonl", TrainingRow), ROWS):
                first = row.messages[0] if row.messages else None
                system = first.content if first is not None and first.role == "system" else ""
                counted[system] = counted.get(system, 0) + 1
            if counted:
                return max(counted, key=lambda text: (counted[text], text))
    return ""


def about_lines(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """``facts`` as a name and a text for people each, in the order in which they are shown."""
    taxonomy, samples, package = (facts.get(name, {}) for name in ("taxonomy", "samples", "package"))
    commit, digest = str(taxonomy.get("revision", ""))[:12], str(package.get("digest", ""))[:19]
    rows = [
        ("taxonomy", f"{taxonomy.get('locator', '')}{f' at commit {commit}' if commit else ''}"),
        ("leaves", ", ".join(taxonomy.get("leaves", ()))),
        ("began from", facts.get("base", "")),
        ("samples", _samples_text(samples)),
        *(("trained", line) for line in facts.get("trained", ())),
        ("gate", facts.get("gate", "")),
        *(("score", f"{score['name']}: {score['text']}") for score in facts.get("scores", ())),
        ("package", f"{package.get('name', '')} {package.get('version', '')} {digest}".strip()),
    ]
    return [(name, str(text)) for name, text in rows if text]


def _samples_text(samples: Mapping[str, Any]) -> str:
    if not samples:
        return ""
    by = f"by {samples['teacher']}" if samples.get("teacher") else "by rule, without a teacher"
    return f"{samples['count']:,}, {by}"


# -- a model of this store ------------------------------------------------------------------------------------------


def _record_of(store: Store, model: Path) -> RecordFile | None:
    folder = model.resolve().parent
    if folder.parent.parent != store.root.resolve() or not (folder / RECORD).is_file():
        return None
    return store.record(folder.parent.name, folder.name)


def _by_key(store: Store) -> dict[str, RecordFile]:
    return {record.key: record for record in store.records()}


def _history(known: Mapping[str, RecordFile], last: RecordFile) -> list[RecordFile]:
    """``last`` and all that had a part in it, the inputs before what is made of them."""
    found: dict[str, RecordFile] = {}

    def walk(record: RecordFile) -> None:
        for key in _inputs(record):
            if key in known and key not in found:
                walk(known[key])
        found[record.key] = record

    walk(last)
    return list(found.values())


def _inputs(record: RecordFile) -> Iterable[str]:
    for value in record.inputs.values():
        yield from value.values() if isinstance(value, Mapping) else [value]


def _of_store(store: Store, own: RecordFile) -> Facts:
    known = _by_key(store)
    history = _history(known, own)
    facts: Facts = {}
    for record in history:
        if record.type == "taxonomy":
            facts["taxonomy"] = dict(next(iter(record.found.values()), {}))
        elif record.type == "base":
            found = next(iter(record.found.values()), {})
            facts["base"] = found.get("locator") or str(record.fields.get("model", ""))
        elif record.type == "generate":
            facts["samples"] = {
                "count": record.counts.get("accepted", 0),
                "teacher": record.fields.get("teacher") or "",
            }
        elif record.type == "train":
            facts.setdefault("trained", []).append(_training(record))
    newest = sorted(known.values(), key=lambda record: record.started, reverse=True)
    for record in newest:
        if record.type == "compare" and (label := _label(known, record, own)):
            comparison = Report(store.contents(record)).report()
            facts["scores"] = _scores(comparison, label)
            gates = (one for one in newest if one.type == "gate" and one.inputs.get("evaluation") == record.key)
            gate = next(gates, None)
            if gate and label == comparison["candidate"]:
                facts["gate"] = Report(store.contents(gate)).report()["line"]
            break
    package = next((one for one in newest if one.type == "package" and one.inputs.get("model") == own.key), None)
    if package:
        digest = Package(store.contents(package)).index()["manifests"][0]["digest"]
        named = {"name": package.fields.get("name", ""), "version": package.fields.get("model_version", "")}
        facts["package"] = {**named, "digest": digest}
    return facts


def _label(known: Mapping[str, RecordFile], compared: RecordFile, own: RecordFile) -> str:
    """What the comparison calls the model; empty where it is none of those compared."""
    models = compared.inputs.get("models")
    for label, key in models.items() if isinstance(models, Mapping) else ():
        scored = known.get(str(key))
        if scored is not None and scored.inputs.get("model") == own.key:
            return str(label)
    return ""


def _training(record: RecordFile) -> str:
    fields = record.fields
    told = [f"{fields[name]} {name}" for name in ("epochs",) if name in fields]
    told += [f"learning rate {fields['learning_rate']:g}"] if "learning_rate" in fields else []
    told += [f"method {fields['method']}"] if "method" in fields else []
    return f"{record.step}: {', '.join(told)}" if told else record.step


def _scores(comparison: Mapping[str, Any], label: str) -> list[dict[str, str]]:
    """The figure of the model ``label`` in each leaf and in all, with its change against the base where it is the one
    that was to be published."""
    rows = []
    for row in summary_rows(comparison):
        cell = next((cell for cell in row["cells"] if cell["model"] == label), None)
        if cell is not None and row["level"] in ("leaf", "total"):
            told = row["change"] if label == comparison["candidate"] else None
            change = f", {told['text']} points against {comparison['reference']}" if told else ""
            rows.append({"name": str(row["name"]), "text": f"{cell['text']}{change}"})
    return rows


# -- a model from elsewhere -----------------------------------------------------------------------------------------


def _of_papers(model: Path) -> Facts:
    folder = model if model.is_dir() else model.parent
    facts: Facts = {}
    lineage, gate, origin = (_paper(folder / name) for name in ("lineage.json", "gate.json", "ilab.origin"))
    named, taxonomy = lineage.get("model"), lineage.get("taxonomy")
    if isinstance(named, Mapping):
        facts["package"] = {name: str(named.get(name, "")) for name in ("name", "version")}
    if isinstance(taxonomy, Mapping):
        leaves = taxonomy.get("leaves")
        facts["taxonomy"] = {"locator": f"tree {str(taxonomy.get('digest', ''))[:12]}"}
        facts["taxonomy"]["leaves"] = [str(leaf) for leaf in leaves] if isinstance(leaves, Mapping) else []
    steps = lineage.get("steps")
    for step in steps if isinstance(steps, list) else ():
        if isinstance(step, Mapping) and step.get("type") == "base" and isinstance(step.get("fields"), Mapping):
            facts["base"] = str(step["fields"].get("model", ""))
    if isinstance(gate.get("line"), str):
        facts["gate"] = gate["line"]
    if origin:
        facts.setdefault("base", str(origin.get("base", "")))
        facts["trained"] = [str(origin.get("step", ""))]
    if evaluation := _paper(folder / "evaluation.json"):
        with suppress(LookupError, TypeError, ValueError, AttributeError):  # it may be somebody else's
            facts["scores"] = _scores(evaluation, evaluation["candidate"])
    return facts


def _paper(path: Path) -> Mapping[str, Any]:
    try:
        value = read_json(path) if path.stat().st_size <= LARGEST else {}
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, Mapping) else {}
