"""The server of the benchmark of generation: as fast as asyncio allows, so that the clients are what is measured.

    python benchmarks/teacher_server.py LATENCY SIGMA SEED

It answers every chat completion after LATENCY seconds, or after a time drawn from a log-normal distribution of that
mean by the prompt and SEED. It prints its port. ``GET`` anything tells what it was asked, and how long it slept in all.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import sys

QUESTIONS = "".join(f"[QUESTION]\nWhat is known of kiln {n} and the mill?\n[/QUESTION]\n" for n in range(3))
ANSWER = "[ANSWER]\nThe kiln burns and the old mill carries the gate to the market.\n[/ANSWER]"


def answer_text(prompt: str) -> str:
    """What the three stages of the job are answered."""
    if "three questions" in prompt:
        return QUESTIONS
    return ANSWER if "Answer the" in prompt else "[VERDICT]YES[/VERDICT]"


class Speaker(asyncio.Protocol):
    """One connection: HTTP/1.1, keep-alive, one request at a time. Counts are the class's own."""

    calls = active = peak = 0
    slept = 0.0
    latency, sigma, seed = 0.05, 0.0, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = 0
        for line in head.split(b"\r\n")[1:]:
            if line[:15].lower() == b"content-length:":
                length = int(line[15:])
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        if head.startswith(b"GET"):
            counted = {"calls": Speaker.calls, "peak": Speaker.peak, "slept": Speaker.slept}
            body = {"data": [{"id": "teacher"}], **counted}
            self.answer(json.dumps(body).encode())
            return
        Speaker.calls += 1
        Speaker.active += 1
        Speaker.peak = max(Speaker.peak, Speaker.active)
        latency = self._latency(rest)
        Speaker.slept += latency
        asyncio.get_running_loop().call_later(latency, self._complete, rest)

    def _latency(self, body: bytes) -> float:
        if not self.sigma:
            return self.latency
        prompt = json.loads(body)["messages"][0]["content"]  # alike for every client
        draw = random.Random(f"{self.seed} {prompt}").gauss(0.0, self.sigma)
        return self.latency * math.exp(draw - self.sigma**2 / 2)

    def _complete(self, body: bytes) -> None:
        Speaker.active -= 1
        text = (
            QUESTIONS if b"three questions" in body else ANSWER if b"Answer the" in body else "[VERDICT]YES[/VERDICT]"
        )
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 500, "completion_tokens": 20}
        self.answer(json.dumps({"model": "teacher", "choices": [choice], "usage": usage}).encode())

    def answer(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.transport.write(head + body)


async def serve(latency: float, sigma: float, seed: float) -> None:
    Speaker.latency, Speaker.sigma, Speaker.seed = latency, sigma, int(seed)
    server = await asyncio.get_running_loop().create_server(Speaker, "127.0.0.1", 0, backlog=8192)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(*map(float, sys.argv[1:4])))
