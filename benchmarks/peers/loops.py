"""The job as a plain loop over a client library: no barriers, and no engine, journal, retries or templates either."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from job import ASK, JUDGE, REPLY, Work, documents


async def by_loop(ask: Callable[[str], Awaitable[str]], work: Work) -> int:
    """Returns the rows."""
    rows = 0

    async def one(document: str, question: str) -> None:
        nonlocal rows
        found = await ask(REPLY.format(document=document, question=question))
        answer = found.removeprefix("[ANSWER]").removesuffix("[/ANSWER]").strip()
        verdict = await ask(JUDGE.format(document=document, question=question, answer=answer))
        rows += "YES" in verdict

    async def through(document: str) -> None:
        found = await ask(ASK.format(document=document))
        questions = [part.split("[/QUESTION]")[0].strip() for part in found.split("[QUESTION]")[1:]]
        await asyncio.gather(*(one(document, question) for question in questions))

    await asyncio.gather(*(through(document) for document in documents(work.documents)))
    return rows
