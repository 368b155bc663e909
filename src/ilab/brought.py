"""What a plan found, in a process that has only the plan, the settings and the store: a pod with a volume of its own.

A plan says where things lay when it was made. Where they are not there, they are fetched into this machine's own cache:

    taxonomy, its documents     the commits that were found (pages: their copies beside the plan)
    earlier, previous           the artifacts in the store that were found
    base model, tokenizer       by the steps themselves, which fetch models anyway
    image of a modelcar         by the step, by its digest

Nothing is decided again: branches and aliases may have moved since. Everything is checked against its digest. What was
given as a file has to be in the image, or on a volume that all see.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ilab.config import Loaded
from ilab.core.git import redacted, split_ref
from ilab.core.pipeline import Plan
from ilab.core.step import Found


def carry(plan: Plan, folder: Path) -> None:
    """Put beside the plan in ``folder`` what cannot be fetched again, and is not in the store."""
    from ilab.documents.bring import carry_pages

    for found in plan.found.values():
        if "pages" in (found.details or {}):
            carry_pages(found, folder)


def brought(loaded: Loaded, plan: Plan, name: str) -> Plan:
    """``plan`` with what its step ``name`` takes as it lies on this machine. The plan's folder is ``loaded.base``.

    Raises ``InputError`` for what is gone or is something else by now, ``ServiceError`` for a server out of reach.
    """
    step = plan.named(name).step
    found = dict(plan.found)
    for field, mark in step.resolvable().items():
        digest = getattr(step, field)
        if digest in found:
            found[digest] = _brought(mark.by, found[digest], loaded, plan)
    return replace(plan, found=found)


def _brought(kind: str, found: Found, loaded: Loaded, plan: Plan) -> Found:
    from ilab.transfer.stores import artifact_at, has_it, open_store

    where = loaded.config.where
    if kind in ("taxonomy", "documents"):
        address = split_ref(str(plan.parameters["sdg_repo_url"]))[0]
        if kind == "taxonomy":
            from ilab.taxonomy.locate import bring_taxonomy

            known = (found.details or {}).get("address", "")  # without the password, as all that a plan tells
            return bring_taxonomy(found, address if known == redacted(address) else known, loaded.base, where)
        from ilab.documents.bring import bring_documents

        return bring_documents(found, address, loaded.base, where)
    if kind == "earlier":
        from ilab.sdg.earlier import bring_earlier

        return bring_earlier(found, open_store(loaded))
    if kind == "previous":
        from ilab.packaging.previous import bring_previous

        # What it tells of itself is enough here: the step that takes the model fetches it.
        return bring_previous(found, lambda place: artifact_at(loaded, place, whole=not has_it(loaded, place)))
    return found
