"""The openai package, the client library of instructlab-sdg and distilabel, without their engines."""

from __future__ import annotations

import asyncio

import openai
from job import Work
from loops import by_loop


def run(url: str, work: Work) -> int:
    return asyncio.run(ask_all(url, work))


async def ask_all(url: str, work: Work) -> int:
    gate = asyncio.Semaphore(work.in_flight)
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:

        async def ask(prompt: str) -> str:
            async with gate:
                reply = await client.chat.completions.create(
                    model="teacher", messages=[{"role": "user", "content": prompt}], max_tokens=100
                )
            return str(reply.choices[0].message.content)

        return await by_loop(ask, work)
