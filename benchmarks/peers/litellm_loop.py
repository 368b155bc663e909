"""LiteLLM, the client library of sdg_hub, without that engine."""

from __future__ import annotations

import asyncio

import litellm
from job import Work
from loops import by_loop


def run(url: str, work: Work) -> int:
    return asyncio.run(ask_all(url, work))


async def ask_all(url: str, work: Work) -> int:
    gate = asyncio.Semaphore(work.in_flight)

    async def ask(prompt: str) -> str:
        messages = [{"role": "user", "content": prompt}]
        async with gate:
            reply = await litellm.acompletion(
                model="openai/teacher", api_base=url, api_key="none", messages=messages, max_tokens=100
            )
        return str(reply.choices[0].message.content)

    return await by_loop(ask, work)
