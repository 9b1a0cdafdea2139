"""The chat endpoint, against a real server on a real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anyio
import pytest

from daemon.chat_endpoint import LONGEST_WAIT_SECONDS, ChatEndpoint
from genome.config import Endpoint
from genome.errors import InvalidConfig, InvalidInput, Unavailable

QUESTION = [{"role": "user", "content": "Is it so?"}]
SECRET = "sk-not-for-any-log"


@dataclass
class Server:
    """Gives what it was told to, in order, and the last for ever; keeps what it was asked."""

    answers: list[tuple[int, Any, dict[str, str]]] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    silent: threading.Event = field(default_factory=threading.Event)
    """While it is not set, an answer of status 0 waits."""
    url: str = ""

    def gives(self, status: int, value: Any, **headers: str) -> None:
        self.answers.append((status, value, headers))

    def says(self, text: str) -> None:
        self.gives(200, {"choices": [{"message": {"role": "assistant", "content": text}}]})


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.asked.append((self.path, dict(self.headers), body))
            status, value, headers = told.answers.pop(0) if len(told.answers) > 1 else told.answers[0]
            if status == 0:
                told.silent.wait()
                return
            data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
            self.send_response(status)
            for name, content in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name.replace("_", "-"), content)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    told.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    yield told
    told.silent.set()
    http.shutdown()
    thread.join()
    http.server_close()


@dataclass
class Waits:
    """Stands for sleeping: notes how long."""

    seconds: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def ask(server: Server, waits: Waits, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Asks the server one question through an endpoint."""
    monkeypatch.setenv("JUDGE_KEY", SECRET)

    def one(**fields: Any) -> str:
        settings = {"url": server.url, "model": "small", "key_env": "JUDGE_KEY", "sleep": waits, **fields}
        return anyio.run(ChatEndpoint(**settings).complete, QUESTION, 32)

    return one


def test_a_question_gets_the_models_text(server: Server, ask: Callable[..., str]) -> None:
    """Model, messages, limit and key arrive as the protocol has them; the reply is the text alone."""
    server.says("It is so.")
    assert ask() == "It is so."
    [(path, headers, body)] = server.asked
    assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {SECRET}"
    assert body == {"model": "small", "messages": QUESTION, "max_tokens": 32, "temperature": 0.0}


def test_the_whole_address_is_taken_too(server: Server, ask: Callable[..., str]) -> None:
    """Whoever copies the address with /chat/completions reaches the same place."""
    server.says("yes")
    ask(url=f"{server.url}/chat/completions")
    assert server.asked[0][0] == "/v1/chat/completions"


@pytest.mark.parametrize("key_env", ["", "NO_SUCH_KEY"])
def test_without_a_key_none_is_sent(server: Server, ask: Callable[..., str], key_env: str) -> None:
    """A server of one's own is asked without authorization."""
    server.says("yes")
    ask(key_env=key_env)
    assert "Authorization" not in server.asked[0][1]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
def test_what_may_pass_is_tried_again(server: Server, waits: Waits, ask: Callable[..., str], status: int) -> None:
    """Two refusals of that kind and then an answer: the caller sees only the answer, after growing waits."""
    server.gives(status, "busy")
    server.gives(status, "busy")
    server.says("now")
    assert ask() == "now" and len(server.asked) == 3
    first, second = waits.seconds
    assert 0.25 <= first <= 0.5 <= second <= 1.0


def test_the_wait_a_server_asks_for_is_kept(server: Server, waits: Waits, ask: Callable[..., str]) -> None:
    """Retry-After counts, up to the longest wait; one that is no number of seconds does not."""
    for asked in ("7", "86400", "nan", "Wed, 21 Oct 2026 07:28:00 GMT"):
        server.gives(429, "slower", Retry_After=asked)
    server.says("now")
    ask()
    assert waits.seconds[:2] == [7.0, LONGEST_WAIT_SECONDS] and 0 < waits.seconds[2] <= 2 and 0 < waits.seconds[3] <= 4


def test_it_gives_up_after_so_many_tries(server: Server, waits: Waits, ask: Callable[..., str]) -> None:
    """max_retries further tries are made, and the error says what the last one got."""
    server.gives(503, "overloaded")
    with pytest.raises(Unavailable, match="3 tries: 503: overloaded"):
        ask(max_retries=2)
    assert len(server.asked) == 3 and len(waits.seconds) == 2


def test_a_server_that_is_silent_is_left(server: Server, ask: Callable[..., str]) -> None:
    """A try ends after timeout_seconds, and counts as one that may pass."""
    server.gives(0, "")
    server.says("at last")
    assert ask(timeout_seconds=0.2) == "at last"


def test_a_server_that_is_away_is_told(ask: Callable[..., str]) -> None:
    """Nobody listens: Unavailable, after all tries."""
    with pytest.raises(Unavailable, match="2 tries: ConnectError"):
        ask(url="http://127.0.0.1:9/v1", max_retries=1)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, InvalidInput), (401, InvalidConfig), (403, InvalidConfig), (404, InvalidConfig)]
)
def test_what_will_not_pass_is_not_tried_again(
    server: Server, ask: Callable[..., str], status: int, kind: type[Exception]
) -> None:
    """A refusal for good is told at once, in the server's words."""
    server.gives(status, {"error": {"message": "not for you"}})
    with pytest.raises(kind, match="not for you"):
        ask()
    assert len(server.asked) == 1


def test_the_key_is_in_no_error(server: Server, ask: Callable[..., str]) -> None:
    """Also where the server repeats it."""
    server.gives(401, {"error": {"message": f"Incorrect API key provided: {SECRET}"}})
    with pytest.raises(InvalidConfig) as refused:
        ask()
    assert SECRET not in str(refused.value) and "JUDGE_KEY" in str(refused.value)
    assert SECRET not in repr(ChatEndpoint(server.url, "small", "JUDGE_KEY"))


@pytest.mark.parametrize("answer", ["<html>", {"choices": []}, {"choices": [{"message": {"content": None}}]}, [1]])
def test_what_is_no_completion_is_tried_again(server: Server, ask: Callable[..., str], answer: Any) -> None:
    """A page of a proxy, or a reply without text, is no answer."""
    server.gives(200, answer)
    server.says("a real one")
    assert ask() == "a real one"


def test_a_model_without_those_settings_is_asked_without(server: Server, ask: Callable[..., str]) -> None:
    """Newer models name the limit otherwise and have no temperature: they are asked in their way, at once."""
    server.gives(400, {"error": {"message": "'max_tokens' is not supported. Use 'max_completion_tokens' instead."}})
    server.gives(400, {"error": {"message": "'temperature' does not support 0 with this model."}})
    server.says("thought")
    assert ask(max_retries=0) == "thought"
    assert server.asked[-1][2] == {"model": "small", "messages": QUESTION, "max_completion_tokens": 32}


def test_the_endpoint_comes_from_the_config() -> None:
    """[endpoint] names all of it; without a url there is none, and the error says where to name one."""
    section = Endpoint(url="https://models.example/v1", model="m", key_env="K", timeout_seconds=5, max_retries=1)
    assert ChatEndpoint.of(section) == ChatEndpoint("https://models.example/v1", "m", "K", 5, 1)
    with pytest.raises(InvalidConfig, match=r"\[endpoint\]"):
        ChatEndpoint.of(Endpoint())


@pytest.mark.parametrize("fields", [{"url": "models.example/v1", "model": "m"}, {"url": "https://models.example/v1"}])
def test_half_an_endpoint_is_refused(fields: dict[str, str]) -> None:
    """A url without its scheme, or without a model, is found when the config is read."""
    with pytest.raises(ValueError, match=r"http|model"):
        Endpoint(**fields)
