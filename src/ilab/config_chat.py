"""The settings of ``ilab model chat``. None of them changes what is built."""

from __future__ import annotations

from pydantic import Field

from ilab.config_where import Endpoint, Section


class Chat(Section):
    """How one talks to a model in the terminal. Which model it is: ``models.default``, or ``endpoint``."""

    context: str = Field("default", description="name of the system prompt to begin with")
    contexts: dict[str, str] = Field(
        default_factory=dict, description="system prompts of your own, by name; one called `default` is the usual one"
    )
    endpoint: Endpoint | None = Field(None, description="the server to talk to, in place of a model on this machine")
    logs_dir: str | None = Field(None, description="folder of the logs, one for each chat; empty: in the data home")
    max_tokens: int | None = Field(None, gt=0, description="longest answer; empty: as long as the context holds")
    memory: int | None = Field(
        None,
        ge=0,
        description="earlier questions sent along; empty: all that fit, none to a model of 1,024 tokens or less",
    )
    session: str | None = Field(None, description="saved conversation to go on with")
    temperature: float = Field(0.0, ge=0, le=2, description="0 always gives the likeliest answer, more gives variety")
    vi_mode: bool = Field(False, description="edit the line as in vi, not as in Emacs")
    visible_overflow: bool = Field(
        True,
        description="follow an answer that is longer than the screen; otherwise show its beginning until it is done",
    )
