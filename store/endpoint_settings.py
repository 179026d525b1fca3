"""What every section of the settings is, and how a model behind an OpenAI-compatible endpoint is named and priced."""

import os

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Endpoint(Section):
    """An OpenAI-compatible endpoint for the roles judge, annotator, simulator, compressor, filter and user."""

    base_url: str
    model: str
    name: str = ""
    """What the log calls it, with verdicts and cached answers; empty: the model. Two judges of one model need two."""
    key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key; unset means no key."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Deadline of one question, tries again included."""
    max_concurrency: int = Field(default=16, ge=1)
    retries: int = Field(default=3, ge=0)
    """After a timeout, a lost connection, 408, 409, 429 or 5xx; never after any other refusal."""
    max_requests_per_minute: int = Field(default=0, ge=0)
    """Tries again included; 0: no limit."""
    max_usd: float = Field(default=0.0, ge=0)
    """What one command may spend at this endpoint; then it stops cleanly. 0: no limit. Needs the model's price.

    Tries that may have been billed without an answer count in full; where an endpoint does not report tokens they are
    estimated."""
    temperature: float = Field(default=0.0, ge=0)

    @property
    def known_as(self) -> str:
        """The name in the log, which holds so many characters of it."""
        return (self.name or self.model)[:128]

    @property
    def api_key(self) -> str:
        return os.environ.get(self.key_env, "none")


class Price(Section):
    """US dollars for a million tokens."""

    prompt: float = Field(ge=0)
    cached: float | None = Field(default=None, ge=0)
    """Of a prompt, tokens served from the endpoint's cache; None: as `prompt`."""
    completion: float = Field(ge=0)

    def usd(self, prompt_tokens: float, completion_tokens: float, cached_tokens: float = 0) -> float:
        """What so many tokens cost; `cached_tokens` of the prompt's came out of the endpoint's cache."""
        cached = self.prompt if self.cached is None else self.cached
        fresh = prompt_tokens - cached_tokens
        return (fresh * self.prompt + cached_tokens * cached + completion_tokens * self.completion) / 1e6
