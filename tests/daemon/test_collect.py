"""`genome collect`: from an application's files to the inbox, and what a second time changes."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from drop_zone import DropZone

from daemon import cli
from genome import config, files
from genome.layout import Home

FOR = ("--persona", "helper", "--domain", "git")
CORRECTED = [("user", "capital of Australia?"), ("assistant", "Sydney"), ("user", "no, it's Canberra")]
DOUBTFUL = [("user", "capital of Austria?"), ("assistant", "Graz"), ("user", "Vienna, surely")]


def chat(turns: list[tuple[str, str]]) -> str:
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]}) + "\n"


@pytest.fixture
def collect(home: Home, base_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs `genome collect …` in a home; (exit code, standard output, standard error)."""
    config.init(home, str(base_path))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["genome", "collect", *arguments, *FOR, "--home", str(home.root)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def transcript(tmp_path: Path) -> Path:
    path = tmp_path / "chats.jsonl"
    path.write_text(chat(CORRECTED) + chat(DOUBTFUL))
    return path


def dropped(home: Home) -> list[dict[str, Any]]:
    """Every line that lies in the inbox."""
    return [json.loads(line) for path in sorted(home.inbox.rglob("*.jsonl")) for line in path.read_text().splitlines()]


def test_what_was_found_lies_in_the_inbox(collect: Callable[..., Any], home: Home, transcript: Path) -> None:
    """One file of whole signals, in the persona's and domain's place; and it is said where."""
    code, out, _ = collect("transcripts", str(transcript))
    [line] = dropped(home)
    [path] = (home.inbox / "helper" / "git").iterdir()
    assert code == 0 and str(path) in out and "1 signals: 1 correction; 1 teach, 0 refused" in out
    assert (line["input"], line["correct_output"], line["persona_id"]) == (
        "capital of Australia?",
        "Canberra",
        "helper",
    )
    assert not list(home.inbox.rglob(f"{files.UNFINISHED}*"))


def test_collecting_twice_changes_nothing(
    collect: Callable[..., Any], home: Home, transcript: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file gets the same name; and the buffer knows what it took, also after the file has left the inbox."""
    zone = DropZone(home, monkeypatch)
    collect("transcripts", str(transcript))
    zone.look()
    assert zone.stored() == ["capital of Australia?"]
    assert "lay in the inbox before" in collect("transcripts", str(transcript))[1] and len(dropped(home)) == 1
    for path in home.inbox.rglob("*.jsonl"):
        path.unlink()
    zone.look()
    collect("transcripts", str(transcript))
    zone.look()
    assert len(dropped(home)) == 1 and zone.stored() == ["capital of Australia?"] and not zone.refused()


def test_a_dry_run_writes_nothing(collect: Callable[..., Any], home: Home, transcript: Path) -> None:
    """It shows counts and examples."""
    code, out, _ = collect("transcripts", str(transcript), "--dry-run")
    assert code == 0 and dropped(home) == [] and "- Sydney" in out and "+ Canberra" in out
    found = json.loads(collect("transcripts", str(transcript), "--dry-run", "--json")[1])
    assert found["by_type"] == {"correction": 1} and found["examples"][0]["correct_output"] == "Canberra"
    assert "file" not in found


@pytest.mark.parametrize(
    ("verb", "row"),
    [
        ("reactions", {"prompt": "list", "response": "dir", "edited": "ls"}),
        ("peers", {"question": "list", "answer": "dir", "better": "ls"}),
        ("dataset", {"question": "list", "answer": "ls"}),
    ],
)
def test_every_kind_is_read_from_standard_input(
    collect: Callable[..., Any], home: Home, monkeypatch: pytest.MonkeyPatch, verb: str, row: dict[str, str]
) -> None:
    """With a dash for a file."""
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(json.dumps(row).encode())))
    assert collect(verb, "-")[0] == 0
    assert dropped(home)[0]["correct_output"] == "ls"


def test_tools_are_read(collect: Callable[..., Any], home: Home, tmp_path: Path) -> None:
    """A failed call is kept as evidence."""
    call = {"id": "1", "function": {"name": "weather", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "Error: no city"},
    ]
    (tmp_path / "runs.jsonl").write_text(json.dumps({"messages": turns}))
    assert collect("tools", str(tmp_path / "runs.jsonl"))[0] == 0
    assert dropped(home)[0]["type"] == "mistake" and dropped(home)[0]["source"] == "automated"


def test_columns_are_named_on_the_command_line(collect: Callable[..., Any], home: Home, tmp_path: Path) -> None:
    """--map field=column; what is not written so is refused."""
    (tmp_path / "faq.csv").write_text("frage,antwort\nlist files,ls\n")
    assert collect("dataset", str(tmp_path / "faq.csv"), "--map", "input=frage", "--map", "output=antwort")[0] == 0
    assert dropped(home)[0]["input"] == "list files"
    code, _, error = collect("dataset", str(tmp_path / "faq.csv"), "--map", "input")
    assert code == 3 and "--map input is not field=column" in error


def test_a_bad_line_costs_only_itself(collect: Callable[..., Any], home: Home, transcript: Path) -> None:
    """It is named with its file, line and reason; the others are taken. Where none is good, nothing is done."""
    transcript.write_text("nonsense\n" + chat(CORRECTED))
    code, out, _ = collect("transcripts", str(transcript))
    assert code == 3 and f"{transcript}:1: not JSON" in out and len(dropped(home)) == 1
    transcript.write_text("nonsense\n")
    code, _, error = collect("transcripts", str(transcript))
    assert code == 3 and "no row could be read" in error and len(dropped(home)) == 1


def test_what_was_left_out_is_counted(collect: Callable[..., Any], home: Home, tmp_path: Path) -> None:
    """Refusals by the dozen are cut short, and end with 3 after the rest was written; what says the same is told."""
    rows = [{"question": f"q{i}", "answer": "a", "id": i % 3} for i in range(6)]
    for name in ("one.jsonl", "two.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows) + "nonsense\n" * 30)
    code, out, _ = collect("dataset", str(tmp_path / "one.jsonl"), str(tmp_path / "two.jsonl"))
    assert code == 3 and len(dropped(home)) == 6
    assert out.count("not JSON") == 20 and "40 more" in out and "6 said again" in out
    (tmp_path / "likes.jsonl").write_text('{"prompt": "q", "response": "a", "stars": 3}\n')
    code, out, _ = collect("reactions", str(tmp_path / "likes.jsonl"))
    assert code == 0 and "1 rows said nothing" in out


def test_a_field_nobody_knows_is_refused(collect: Callable[..., Any], home: Home, tmp_path: Path) -> None:
    """By name: a slip of the keys must not be taken for a column that says nothing."""
    (tmp_path / "faq.csv").write_text("frage,antwort\nlist files,ls\n")
    code, _, error = collect("dataset", str(tmp_path / "faq.csv"), "--map", "inptu=frage")
    assert code == 3 and "dataset has no field inptu" in error and dropped(home) == []


def test_what_is_not_there_is_said(collect: Callable[..., Any]) -> None:
    """A file that does not exist, a persona that is no name, an endpoint nobody named."""
    assert collect("transcripts", "/nowhere.jsonl")[0] == 4
    code, _, error = collect("transcripts", "-", "--classify")
    assert code == 3 and "[endpoint]" in error


@pytest.fixture
def model(home: Home, collect: object) -> Iterator[list[Any]]:
    """An endpoint on a real socket, named in the config. The list: first what it gives, then what it was asked."""
    told: list[Any] = [(200, '{"kind": "correction", "right": "Vienna", "restates": false}')]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status, text = told[0]
            data = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    with home.config.open("a") as text:
        text.write(f'\n[endpoint]\nurl = "{url}"\nmodel = "m"\nmax_retries = 0\n')
    yield told
    http.shutdown()
    thread.join()
    http.server_close()


def test_a_model_is_asked_about_the_rest(
    collect: Callable[..., Any], home: Home, transcript: Path, model: list[Any]
) -> None:
    """Only about the turn the rules did not understand; what it says is silver."""
    code, out, _ = collect("transcripts", str(transcript), "--classify")
    assert code == 0 and "the endpoint was asked about 1 turns" in out and len(model) == 2
    assert "Vienna, surely" in model[1]["messages"][1]["content"]
    by_source = {line["source"]: (line["correct_output"], line["weight"]) for line in dropped(home)}
    assert by_source == {"human": ("Canberra", 1.0), "ai": ("Vienna", 0.5)}


def test_one_bad_conversation_costs_only_itself(
    collect: Callable[..., Any], home: Home, transcript: Path, model: list[Any]
) -> None:
    """What cannot be sent is refused before anything is asked; a signal that is none loses its conversation alone."""
    half = chat([("user", "capital of \ud800?"), ("assistant", "Graz"), ("user", "Vienna, surely")])
    bad = json.loads(chat(CORRECTED))
    bad["messages"][1]["adapter"] = {"id": ["no text"]}
    transcript.write_text(half + json.dumps(bad) + "\n" + chat(CORRECTED) + chat(DOUBTFUL))
    code, out, _ = collect("transcripts", str(transcript), "--classify")
    assert code == 3 and f"{transcript}:1: a message holds half" in out and f"{transcript}:2: " in out
    assert sorted(line["correct_output"] for line in dropped(home)) == ["Canberra", "Vienna"] and len(model) == 2


@pytest.mark.parametrize(("status", "code", "lines"), [(500, 7, 0), (401, 3, 0), (400, 0, 1)])
def test_a_model_that_fails(
    collect: Callable[..., Any], home: Home, transcript: Path, model: list[Any], status: int, code: int, lines: int
) -> None:
    """An endpoint that is down or refuses the key ends it with nothing written; one refused turn stays unread."""
    model[0] = (status, "")
    assert collect("transcripts", str(transcript), "--classify")[0] == code
    assert len(dropped(home)) == lines
