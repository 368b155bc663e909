"""aiohttp and nothing else: what there is to reach."""

from __future__ import annotations

import asyncio

import aiohttp
from job import Work
from loops import by_loop


def run(url: str, work: Work) -> int:
    return asyncio.run(ask_all(url, work))


async def ask_all(url: str, work: Work) -> int:
    gate = asyncio.Semaphore(work.in_flight)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(prompt: str) -> str:
            body = {"model": "teacher", "messages": [{"role": "user", "content": prompt}], "max_tokens": 100}
            async with gate, session.post(f"{url}/chat/completions", json=body) as response:
                return str((await response.json())["choices"][0]["message"]["content"])

        return await by_loop(ask, work)
