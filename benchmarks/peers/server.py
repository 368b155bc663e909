"""The server of the benchmark of generation: as fast as asyncio allows, so that the clients are what is measured.

    python benchmarks/peers/server.py LATENCY SIGMA SLOW SEED

It answers chat completions and completions (with one prompt or a list of them) after LATENCY seconds, or after a time
drawn by the prompt and SEED: from a log-normal distribution of that mean (SIGMA), or ten times as long for a share
SLOW. A list takes as long as its slowest prompt, and counts as many calls as it has prompts. The server prints its
port. ``GET /v1/models`` tells what it was asked, how many calls it had at once, how long it slept for all of them
together, and how much processor time it took itself.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import sys
import time
from typing import Any

from job import answer_text


class Speaker(asyncio.Protocol):
    """One connection: HTTP/1.1, keep-alive, one request at a time. Counts are the class's own."""

    calls = active = peak = 0
    slept = longest = 0.0
    latency, sigma, slow, seed = 0.05, 0.0, 0.0, 0

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
            self.tell()
        elif not rest[:length].strip():
            self.answer({"data": []})
        else:
            self.ask(json.loads(rest[:length]))

    def tell(self) -> None:
        counted = {name: getattr(Speaker, name) for name in ("calls", "peak", "slept", "longest")}
        self.answer({"data": [{"id": "teacher", "object": "model"}], "cpu": time.process_time(), **counted})

    def ask(self, body: dict[str, Any]) -> None:
        if "messages" in body:
            said = body["messages"][-1]["content"]
            prompts = [said if isinstance(said, str) else "".join(part["text"] for part in said)]
        else:
            prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        if not any("text" in prompt for prompt in prompts):  # no call of the job: a client tries what the server can
            self.answer(completion(body, ["ok"] * (len(prompts) * body.get("n", 1))))
            return
        delays = [self.delay(prompt) for prompt in prompts]
        Speaker.calls += len(prompts)
        Speaker.active += len(prompts)
        Speaker.peak = max(Speaker.peak, Speaker.active)
        Speaker.slept += sum(delays)
        Speaker.longest = max(Speaker.longest, *delays)
        asyncio.get_running_loop().call_later(max(delays), self.complete, body, prompts)

    def delay(self, prompt: str) -> float:
        if not (self.sigma or self.slow):
            return self.latency
        draw = random.Random(f"{self.seed} {prompt}")  # alike for every client
        if self.slow:
            return self.latency * (10 if draw.random() < self.slow else 1)
        return self.latency * math.exp(draw.gauss(0.0, self.sigma) - self.sigma**2 / 2)

    def complete(self, body: dict[str, Any], prompts: list[str]) -> None:
        Speaker.active -= len(prompts)
        self.answer(completion(body, [answer_text(prompt) for prompt in prompts]))

    def answer(self, told: dict[str, Any]) -> None:
        body = json.dumps(told).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.transport.write(head + body)


def completion(body: dict[str, Any], texts: list[str]) -> dict[str, Any]:
    """The answer in the form of the protocol."""
    choices = []
    for index, text in enumerate(texts):
        said = {"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
        choices.append({"index": index, "finish_reason": "stop", "logprobs": None, **said})
    kind = "chat.completion" if "messages" in body else "text_completion"
    usage = {"prompt_tokens": 500, "completion_tokens": 20, "total_tokens": 520}
    return {"id": "1", "object": kind, "created": 1, "model": "teacher", "choices": choices, "usage": usage}


async def serve(latency: float, sigma: float, slow: float, seed: float) -> None:
    Speaker.latency, Speaker.sigma, Speaker.slow, Speaker.seed = latency, sigma, slow, int(seed)
    server = await asyncio.get_running_loop().create_server(Speaker, "127.0.0.1", 0, backlog=8192)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(*map(float, sys.argv[1:5])))
