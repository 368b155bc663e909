"""Likelihoods through a server, beside those of the same model in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from ilab.config import Endpoint
from ilab.errors import ServiceError
from ilab.models.likelihood import Pair, encode_pair, score_all
from ilab.models.likelihood_local import LocalLikelihoods
from ilab.models.likelihood_served import ServedLikelihoods
from ilab.serving.server import Server
from ilab.testing.loopback import serving


def pairs(local: Any) -> list[Pair]:
    texts = [("How many locks?", " 14"), ("How many locks?", " 14 locks."), ("Größe?", " café, 東京"), ("lamp", "")]
    long = Pair(tuple(range(5, 205)) * 2, (7, 8))
    made = [encode_pair(local.renderer, *text) for text in texts] + [long]
    greedy = next(local.generate(made[0].context, 1))
    return [*made, Pair(made[0].context, (greedy,))]


def test_a_server_says_what_the_model_says_here(local: Any) -> None:
    asked = pairs(local)
    with serving(Server(local, "tiny").application()) as address:
        url = f"{address}/v1"
        served = ServedLikelihoods(Endpoint(url=url), "tiny", local.context_length)
        found = score_all(served, asked)
        with pytest.raises(ServiceError, match="not served here"):
            score_all(ServedLikelihoods(Endpoint(url=url), "other", 100), asked[:1])
    cut = [Pair(pair.context[one.cut :], pair.continuation) for pair, one in zip(asked, found, strict=True)]
    wanted = score_all(LocalLikelihoods(local), cut)
    assert [one.total for one in found] == pytest.approx([one.total for one in wanted], abs=1e-4)
    assert [(one.greedy, one.tokens) for one in found] == [(one.greedy, one.tokens) for one in wanted]
    assert found[-1].greedy and not found[0].greedy
    assert [one.cut for one in found] == [0, 0, 0, 0, 402 - local.context_length + 1, 0]


def answering(reply: Callable[[dict[str, Any]], web.Response]) -> web.Application:
    async def complete(request: web.Request) -> web.Response:
        return reply(json.loads(await request.read()))

    application = web.Application()
    application.router.add_post("/v1/completions", complete)
    return application


def choice(logprobs: Any) -> web.Response:
    return web.json_response({"choices": [{"text": "x", "logprobs": logprobs}]})


UNABLE = {
    "ignores": (lambda body: choice(None), "it told of 0 tokens where the prompt has"),
    "of the answer only": (
        lambda body: choice({"tokens": ["x"], "token_logprobs": [-1.0]}),
        "it told of 1 tokens where the prompt has",
    ),
    "empty": (
        lambda body: choice({"tokens": ["x"] * len(body["prompt"]), "token_logprobs": [None] * len(body["prompt"])}),
        "all of them are empty",
    ),
    "refuses": (
        lambda body: web.json_response({"error": {"message": "echo is not supported"}}, status=400),
        "echo is not supported",
    ),
}


@pytest.mark.parametrize("case", UNABLE)
def test_a_server_that_cannot_is_refused_with_the_reason(case: str) -> None:
    reply, reason = UNABLE[case]
    with serving(answering(reply)) as address, pytest.raises(ServiceError, match=reason) as caught:
        url = f"{address}/v1"
        score_all(ServedLikelihoods(Endpoint(url=url), "m", 100), [Pair((1, 2, 3), (4, 5))])
    assert "does not tell the log-probabilities of a prompt" in str(caught.value) and "folder" in caught.value.hint
