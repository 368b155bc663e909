"""What clients may ask, in OpenAI's form, and how they are refused.

What this server cannot do (tools, penalties, biases) is refused with an error that names the field, never ignored.
Fields that only refuse have the one value that is allowed.
"""

from __future__ import annotations

import secrets
from typing import Any, Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ilab.data import seed_from
from ilab.errors import IlabError, InputError, ServiceError
from ilab.models.local import ContextError, Sampling

MOST_CHOICES = 16  # answers to one request
MOST_TOP = 20  # alternatives to each token

R = TypeVar("R", bound=BaseModel)


class Turn(BaseModel):
    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "user", "assistant"]
    content: str

    @field_validator("content", mode="before")
    @classmethod
    def _parts(cls, value: Any) -> Any:
        """A list of text parts is the text of them all."""
        if isinstance(value, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in value):
            return "".join(str(part.get("text", "")) for part in value)
        return value


class StreamOptions(BaseModel):
    include_usage: bool = False


class Completion(BaseModel):
    """What both kinds of completion share."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = None
    stop: str | list[str] | None = Field(None, max_length=4096)
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    best_of: Literal[1] | None = None
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None
    logit_bias: dict[str, float] | None = Field(None, max_length=0)
    tools: list[Any] | None = Field(None, max_length=0)

    @property
    def limit(self) -> int | None:
        """Tokens that an answer may have."""
        return self.max_tokens

    @property
    def top(self) -> int | None:
        """How many alternatives to each token are told; None where no log-probabilities are wanted."""
        return None

    def samplings(self) -> list[Sampling]:
        """How each choice is drawn. The first has the seed of the request, the others seeds made of it."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        seed = secrets.randbits(62) if self.seed is None else self.seed
        seeds = [seed, *(seed_from(f"choice {index}", seed) for index in range(1, self.n or 1))]
        return [Sampling(self.limit, self.temperature, self.top_p, one, stop) for one in seeds]


class Schema(BaseModel):
    """The part of ``json_schema`` that is read; ``name``, ``description`` and ``strict`` change nothing here."""

    model_config = ConfigDict(extra="ignore")

    content: dict[str, Any] | bool | None = Field(None, alias="schema")


class ResponseFormat(BaseModel):
    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: Schema | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> ResponseFormat:
        if self.type == "json_schema" and (self.json_schema is None or self.json_schema.content is None):
            raise ValueError("json_schema needs json_schema.schema")
        return self


class ChatRequest(Completion):
    messages: list[Turn] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_TOP)
    response_format: ResponseFormat = ResponseFormat()

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def top(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @model_validator(mode="after")
    def _together(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self


class TextRequest(Completion):
    """A text, or token ids. With ``echo`` the log-probabilities are those of the prompt's tokens."""

    prompt: str | list[int]
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=MOST_TOP)

    @property
    def top(self) -> int | None:
        return self.logprobs


class RequestError(InputError):
    """A request that is refused with a status, the name of the field at fault, and OpenAI's code for it."""

    def __init__(self, status: int, message: str, field: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.field = field
        self.code = code


async def parse(request: web.Request, kind: type[R]) -> R:
    """The body as ``kind``. Raises ``RequestError`` 400, which names the field."""
    try:
        return kind.model_validate_json(await request.read())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise RequestError(400, f"{field or 'the body'}: {first['msg']}", field or None) from error


def status_of(error: IlabError) -> int:
    if isinstance(error, RequestError):
        return error.status
    if isinstance(error, InputError):
        return 400
    return 503 if isinstance(error, ServiceError) else 500


def error_body(error: IlabError) -> dict[str, Any]:
    """The error in OpenAI's form."""
    code = "context_length_exceeded" if isinstance(error, ContextError) else None
    field = None
    if isinstance(error, RequestError):
        field, code = error.field, error.code
    kind = "invalid_request_error" if isinstance(error, InputError) else "server_error"
    return {"error": {"message": str(error), "type": kind, "param": field, "code": code}}
