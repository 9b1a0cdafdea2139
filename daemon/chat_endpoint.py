"""A language model behind an OpenAI-compatible `/v1/chat/completions`: asked a question, it gives its text.

The key is read from the environment when a question is asked. It goes to the endpoint alone: into no file, log, event
or error.
"""

from __future__ import annotations

import functools
import os
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import httpx

from genome.config import Endpoint
from genome.errors import InvalidConfig, InvalidInput, Unavailable

AGAIN = frozenset({408, 409, 425, 429})
"""Statuses below 500 that another try may clear."""
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 60.0
SHOWN = 300
"""Characters of a server's own words that an error repeats."""


class _Transient(Exception):
    """A try failed in a way that another may not. ``wait_seconds``: what the server asked for."""

    def __init__(self, why: str, wait_seconds: float | None = None) -> None:
        super().__init__(why)
        self.wait_seconds = wait_seconds


@dataclass(frozen=True)
class ChatEndpoint:
    """One model at one address. Holds no connection between questions, so it may be kept, shared and forgotten."""

    url: str
    """``https://host/v1``, or the whole address with ``/chat/completions``."""
    model: str
    key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key. Empty, or not set: none is sent, as servers of one's own want it."""
    timeout_seconds: float = 60.0
    """Of one try, from connecting to the last byte."""
    max_retries: int = 4
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep

    @classmethod
    def of(cls, section: Endpoint) -> ChatEndpoint:
        """The endpoint that genome.toml names; InvalidConfig if it names none."""
        if not section.url:
            raise InvalidConfig("no endpoint is configured", "Set url and model under [endpoint] in genome.toml")
        return cls(section.url, section.model, section.key_env, section.timeout_seconds, section.max_retries)

    async def complete(self, messages: Sequence[Mapping[str, str]], max_tokens: int = 256) -> str:
        """The model's reply, at temperature 0 where it has one.

        Timeouts, lost connections, 429 and 5xx are tried again ``max_retries`` times, after the wait the server asks
        for or a doubling one; then Unavailable. A refusal that trying again cannot change is InvalidConfig (the key,
        the address) or InvalidInput.
        """
        body = {"model": self.model, "messages": [*messages], "max_tokens": max_tokens, "temperature": 0.0}
        for tried in range(self.max_retries + 1):
            try:
                return await self._ask(body)
            except _Transient as error:
                if tried == self.max_retries:
                    raise Unavailable(f"{self.url} did not answer in {tried + 1} tries: {error}") from None
                await self.sleep(wait_before(tried, error.wait_seconds))
        raise AssertionError("the last try returns or raises")

    async def _ask(self, body: dict[str, Any]) -> str:
        """One try. What the model has no such setting for is left out, once each, without counting as a try."""
        try:
            with anyio.fail_after(self.timeout_seconds):
                async with httpx.AsyncClient(timeout=None, verify=tls()) as client:
                    answer = await self._post(client, body)
                    while answer.status_code == 400 and _fit(body, answer):
                        answer = await self._post(client, body)
        except TimeoutError:
            raise _Transient(f"no answer within {self.timeout_seconds:g} seconds") from None
        except httpx.InvalidURL as error:
            raise InvalidConfig(f"endpoint.url {self.url!r} is no address: {error}") from None
        except httpx.TransportError as error:
            raise _Transient(self._shown(f"{type(error).__name__} {error}".strip())) from None
        return self._text(answer)

    async def _post(self, client: httpx.AsyncClient, body: dict[str, Any]) -> httpx.Response:
        address = self.url.rstrip("/")
        if not address.endswith("/chat/completions"):
            address += "/chat/completions"
        headers = {"Authorization": f"Bearer {self._key()}"} if self._key() else {}
        return await client.post(address, json=body, headers=headers)

    def _text(self, answer: httpx.Response) -> str:
        if answer.status_code >= 500 or answer.status_code in AGAIN:
            raise _Transient(f"{answer.status_code}: {self._shown(answer.text)}", asked_wait(answer))
        if answer.status_code in (401, 403):
            raise InvalidConfig(
                f"{self.url} refuses access: {self._shown(answer.text)}",
                f"Set the environment variable {self.key_env or '(endpoint.key_env names none)'} to a key it takes",
            )
        if answer.status_code == 404:
            raise InvalidConfig(
                f"{self.url} has no such model or address: {self._shown(answer.text)}",
                "Look at endpoint.url, which mostly ends in /v1, and endpoint.model",
            )
        if answer.status_code != 200:
            raise InvalidInput(f"{self.url} refuses the question ({answer.status_code}): {self._shown(answer.text)}")
        try:
            text = answer.json()["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            raise _Transient(f"no chat completion but {self._shown(answer.text)}") from None
        if not isinstance(text, str):
            raise _Transient("a reply without text")
        return text

    def _key(self) -> str:
        return os.environ.get(self.key_env, "").strip() if self.key_env else ""

    def _shown(self, text: str) -> str:
        """A server's words, on one line and short. Some repeat the key they refuse."""
        hidden = text.replace(self._key(), "[key]") if self._key() else text
        return " ".join(hidden.split())[:SHOWN]


@functools.cache
def tls() -> ssl.SSLContext:
    """Made once a process: reading the certificates takes longer than a question to a server nearby."""
    return httpx.create_ssl_context()


def _fit(body: dict[str, Any], refusal: httpx.Response) -> bool:
    """Changes a setting that the refusal says this model does not have; False if there is none."""
    if "max_tokens" in body and "max_completion_tokens" in refusal.text:
        body["max_completion_tokens"] = body.pop("max_tokens")  # models that reason count their thoughts in it
        return True
    if "temperature" in body and "temperature" in refusal.text:
        del body["temperature"]
        return True
    return False


def asked_wait(answer: httpx.Response) -> float | None:
    """Seconds a server asks for before the next try."""
    try:
        return float(answer.headers.get("Retry-After", ""))
    except ValueError:
        return None


def wait_before(tried: int, asked: float | None) -> float:
    """Seconds before the next try. Spread, so that those who were refused together do not come back together."""
    longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**tried)
    spread = random.uniform(longest / 2, longest)
    return spread if asked is None or not asked >= 0 else min(LONGEST_WAIT_SECONDS, max(asked, spread))
