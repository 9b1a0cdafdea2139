"""Requests to the service: who asks, what is tried again, and what a refusal means.

The key is read from the environment and goes to the service alone: into no file, log, event or error. Signed addresses
of its storage are as good as keys, so no error repeats one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx

from daemon.chat_endpoint import AGAIN, SHOWN, asked_wait, tls, wait_before
from genome.config import Fireworks
from genome.errors import Conflict, InvalidConfig, InvalidInput, NotFound, Unavailable

FAILED_PRECONDITION = 9
"""gRPC's code in a refusal with status 400: what was asked is not possible yet."""

T = TypeVar("T")


class Transient(Exception):
    """A try failed in a way that another may not. ``wait_seconds``: what the server asked for."""

    def __init__(self, why: str, wait_seconds: float | None = None) -> None:
        super().__init__(why)
        self.wait_seconds = wait_seconds


class Api:
    """One account's resources by path below it, such as ``datasets/<id>``."""

    def __init__(
        self, settings: Fireworks, alive: Callable[[], None] = lambda: None, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """``alive`` is called during whatever takes long, so that its caller can say that it is not hung."""
        if lacking := settings.lacking():
            raise InvalidConfig(f"fireworks.{lacking} is empty", f"Set {lacking} under [fireworks] in genome.toml")
        self.settings, self.alive, self.sleep = settings, alive, sleep
        self._key = os.environ.get(settings.key_env, "").strip()
        if not (self._key and self._key.isascii() and self._key.isprintable()):  # in no header, and so in no error
            raise InvalidConfig(
                f"there is no key for {settings.url}: the environment variable {settings.key_env or '(none named)'} "
                f"{'holds something else' if self._key else 'is not set'}",
                "Set it in the daemon's environment, or name another one as fireworks.key_env",
            )
        self._client = httpx.Client(timeout=settings.timeout_seconds, verify=tls())

    def get(self, path: str) -> dict[str, Any]:
        return self._json("GET", path)

    def post(self, path: str, body: Mapping[str, Any], **parameters: str) -> dict[str, Any]:
        """Conflict: what it makes is there already, perhaps from a try whose answer was lost."""
        return self._json("POST", path, json=body, params=parameters)

    def delete(self, path: str) -> None:
        self._json("DELETE", path)

    def find(self, path: str) -> dict[str, Any] | None:
        """A resource, or None if it is not there."""
        try:
            return self.get(path)
        except NotFound:
            return None

    def name(self, path: str) -> str:
        """A resource's whole name, as the service has it in its fields."""
        return f"accounts/{self.settings.account}/{path}"

    def retrying(self, what: str, attempt: Callable[[], T]) -> T:
        """``attempt``'s result. Timeouts, lost connections, 429 and 5xx are tried again, after the wait the server asks
        for or a doubling one; then Unavailable."""
        for tried in range(self.settings.max_retries + 1):
            try:
                return attempt()
            except httpx.TransportError as error:
                why, asked = f"{type(error).__name__} {error}".strip(), None
            except Transient as error:
                why, asked = str(error), error.wait_seconds
            if tried < self.settings.max_retries:
                self.alive()
                self.sleep(wait_before(tried, asked))
        raise Unavailable(f"{what} failed {tried + 1} times: {self.shown(why)}", "What is done already is kept there")

    def send(self, method: str, path: str, **content: Any) -> httpx.Response:
        """One try; the answer is a good one."""
        address = f"{self.settings.url}/{self.name(path)}"
        headers = {"Authorization": f"Bearer {self._key}"}
        answer = self._client.request(method, address, headers=headers, **content)
        self._check(answer, f"{method} {path}")
        return answer

    def stored(self, method: str, signed: str, **content: Any) -> httpx.Response:
        """One try at the storage behind a signed address; the answer is a good one, and its content is not read yet.

        The address itself is the permission, so the key is not sent.
        """
        answer = self._client.send(self._client.build_request(method, signed, **content), stream=True)
        if answer.is_success:
            return answer
        answer.close()
        if answer.status_code >= 500 or answer.status_code in AGAIN:
            raise Transient(f"its storage answers {answer.status_code}", asked_wait(answer))
        raise Unavailable(f"the storage of {self.settings.url} refuses a signed address ({answer.status_code})")

    def shown(self, text: str) -> str:
        """A server's words, on one line and short. Some repeat the key they refuse."""
        return " ".join(text.replace(self._key, "[key]").split())[:SHOWN]

    def _json(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        def attempt() -> dict[str, Any]:
            answer = self.send(method, path, **content)
            try:
                value = answer.json() if answer.content else {}
            except ValueError:
                raise Transient(f"no JSON but {answer.text}") from None
            if not isinstance(value, dict):
                raise Transient(f"no JSON object but {answer.text}")
            return value

        return self.retrying(f"{method} {path} at {self.settings.url}", attempt)

    def _check(self, answer: httpx.Response, what: str) -> None:
        status, (code, words) = answer.status_code, _refusal(answer)
        if answer.is_success:
            return
        said = f"{self.settings.url} refuses {what} ({status}): {self.shown(words)}"
        if status >= 500 or status in AGAIN - {409} or code == FAILED_PRECONDITION:
            raise Transient(f"{status}: {words}", asked_wait(answer))
        if status in (401, 403):
            raise InvalidConfig(
                said, f"Set the environment variable {self.settings.key_env} to a key of {self.settings.account}"
            )
        if status == 404:
            raise NotFound(said, "Look at account and base_model under [fireworks] in genome.toml")
        if status == 409:
            raise Conflict(said)
        raise InvalidInput(said)


def _refusal(answer: httpx.Response) -> tuple[int, str]:
    """gRPC's code, 0 where there is none, and what the server says."""
    if answer.is_success:
        return 0, ""
    try:
        value = answer.json()
        return int(value.get("code", 0)), str(value.get("message") or answer.text)
    except (ValueError, TypeError, AttributeError):
        return 0, answer.text
