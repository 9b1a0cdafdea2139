"""The command line with everything down: verbs that read, verbs that act, errors in one sentence, exit codes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import whole_home
from fixed import NOW
from typer.main import get_command
from typer.testing import CliRunner

from daemon import cli
from daemon.cli import options
from genome import batches, config, files, intake, jobs, lora, pending, registry
from genome.buffer import Buffer
from genome.config import Intake
from genome.errors import EXIT_UNEXPECTED, GenomeError, exit_code
from genome.intake import Reading, Scan
from genome.layout import Home
from genome.lines import from_signal


@pytest.fixture
def filled(home: Home, base_path: Path, signal: Callable[..., Any]) -> Home:
    """A home with thirty signals waiting, as a daemon leaves it that was stopped."""
    config.init(home, str(base_path))
    into = Buffer(home, Intake())
    into.accept([from_signal(signal(i)) for i in range(30)], time.time())
    into.flush()
    return home


def verbs() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in get_command(cli.app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found += [(name, verb) for verb in inner] if inner else [(name,)]
    return found


@pytest.mark.parametrize("verb", verbs(), ids=" ".join)
def test_every_verb_explains_itself_with_an_example(verb: tuple[str, ...]) -> None:
    """--help says what it does and shows one real call."""
    shown = CliRunner().invoke(cli.app, [*verb, "--help"])
    assert shown.exit_code == 0 and f"Example: genome {' '.join(verb)}" in " ".join(shown.output.split())


def test_every_error_has_an_exit_code() -> None:
    """No expected error ends as an unexpected one."""
    leaves = {kind for parent in GenomeError.__subclasses__() for kind in (parent, *parent.__subclasses__())}
    domain = {kind for kind in leaves if kind.__module__ == "genome.errors"}
    assert domain and all(exit_code(kind("x")) != EXIT_UNEXPECTED for kind in domain)


def test_init_makes_a_home_to_drop_into(genome: Callable[..., Any], home: Home, base_path: Path) -> None:
    """And says what comes next."""
    code, out, _ = genome("init", "--base", str(base_path))
    assert code == 0 and "genome run" in out and str(home.inbox) in out
    code, _, error = genome("init", "--base", str(base_path))
    assert code == 5 and "exists already" in error


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("status",), 3, "genome init"),
        (("init", "--base", "/no/model"), 3, "does not exist"),
        (("adapter", "rollback", "--persona", "helper"), 4, "never served"),
        (("training", "status", "job-1"), 4, "no job"),
        (("buffer", "flush"), 2, "--persona"),
    ],
)
def test_an_error_is_one_sentence(genome: Callable[..., Any], arguments: Any, code: int, words: str) -> None:
    """What, where and what to try; never a traceback; a documented exit code."""
    status, _, error = genome(*arguments)
    assert status == code and words in error and "Traceback" not in error


def test_status_works_with_everything_down(genome: Callable[..., Any], filled: Home) -> None:
    """It reads the disk, and says that neither process answers."""
    code, out, _ = genome("status", "--json")
    found = json.loads(out)
    assert code == 0 and found["buffer"]["domains"][0]["pending"] == 30
    assert found["worker"]["answers"] is False and found["daemon"]["answers"] is False
    assert "30 pending" in genome("status")[1]


def test_flush_seals_what_waits(genome: Callable[..., Any], filled: Home) -> None:
    """A batch with its held-out part; a second flush finds nothing."""
    code, out, _ = genome("buffer", "flush", "--persona", "helper", "--domain", "git", "--json")
    assert code == 0 and json.loads(out)["signals"] == 30
    assert pending.count(filled, "helper", "git").examples == 0
    assert genome("buffer", "flush", "--persona", "helper", "--domain", "git")[0] == 4


def test_too_few_to_judge_by_are_not_sealed(
    genome: Callable[..., Any], home: Home, base_path: Path, signal: Any
) -> None:
    """A batch that no gate could judge would be lost on training: its signals wait for more."""
    config.init(home, str(base_path))
    Buffer(home, Intake()).accept([from_signal(signal(i)) for i in range(5)], time.time())
    code, _, error = genome("buffer", "flush", "--persona", "helper", "--domain", "git")
    assert code == 5 and "27 different questions" in error
    assert pending.count(home, "helper", "git").examples == 5


def test_a_prepared_job_is_held_until_it_is_started(genome: Callable[..., Any], filled: Home) -> None:
    """prepare, start, stop, start: the job's state follows, with the daemon down."""
    text = filled.config.read_text()
    filled.config.write_text(f"{text}\n[gate]\nanchors = 0\n\n[training]\ntrainer = 'torch'\n")
    made = json.loads(genome("training", "prepare", "--persona", "helper", "--domain", "git", "--json")[1])
    assert jobs.find(filled, made["job"]).state() == "held"
    assert len(jobs.read_examples(Path(made["path"]) / "train.jsonl")) == 21
    for verb, state in ((("start", "--job"), "waiting"), (("stop",), "held"), (("start", "--job"), "waiting")):
        assert genome("training", *verb, made["job"])[0] == 0
        assert jobs.find(filled, made["job"]).state() == state
    assert genome("training", "start", "--job", made["job"])[0] == 5


def test_pausing_is_a_fact_on_disk(genome: Callable[..., Any], filled: Home) -> None:
    """continuous stop and start work with the daemon down, and status shows what is waited for."""
    assert genome("continuous", "stop")[0] == 0 and filled.paused.exists()
    found = json.loads(genome("continuous", "status", "--json")[1])
    assert found["training"] == "paused" and "30 of 500" in found["waiting"]["helper/git"]
    assert genome("continuous", "start")[0] == 0 and not filled.paused.exists()


def test_asking_without_a_worker_says_how_to_start_one(genome: Callable[..., Any], filled: Home) -> None:
    """Exit 7, and the command that helps."""
    code, _, error = genome("ask", "anything")
    assert code == 7 and "genome worker" in error


def test_rejected_lines_are_listed(genome: Callable[..., Any], filled: Home, drop: Callable[..., Path]) -> None:
    """File, line and reason of each."""
    drop(b"nope")
    found = next(intake.drops(filled, Scan(NOW, 0)))
    Buffer(filled, Intake()).commit(list(Reading(found, intake.NOTHING, True, 1 << 20).chunks()), NOW)
    assert "drop.jsonl:1: not JSON" in genome("buffer", "rejected")[1]
    assert batches.queued(filled, "helper", "git") == []


def test_fsck_says_what_is_wrong_and_mends_it(genome: Callable[..., Any], filled: Home) -> None:
    """0 for a whole home; 8 with one line a problem; 10 once all is repaired, then 0 again."""
    assert genome("fsck") == (0, "30 signals accepted = 30 pending + 0 queued + 0 archived + 0 set aside + "
                                 "0 superseded + 0 retracted + 0 evidence\n0 lines rejected\n"
                                 "the home is whole\n", "")  # fmt: skip
    left = filled.jobs / ".unfinished-x"
    left.mkdir()
    code, out, _ = genome("fsck")
    assert code == 8 and f"{left}: is half-made" in out and out.splitlines()[-1].endswith("genome fsck --repair")
    assert json.loads(genome("fsck", "--json")[1])["problems"][0]["repairable"]
    assert genome("fsck", "--repair")[0] == 10 and not left.exists()
    assert genome("fsck", "--quick")[0] == 0


def test_fsck_repairs_nothing_beside_a_daemon(genome: Callable[..., Any], filled: Home) -> None:
    """Exit 6, naming who holds the home."""
    with files.locked(filled.daemon_lock, "the daemon with process id 7"):
        code, _, error = genome("fsck", "--repair")
    assert code == 6 and "process id 7" in error


def test_damage_that_cannot_be_mended_ends_with_8(genome: Callable[..., Any], filled: Home) -> None:
    """Also after --repair."""
    segment = next(filled.pending("helper", "git").glob("*.jsonl"))
    segment.write_bytes(b"x" + segment.read_bytes())
    assert genome("fsck", "--repair")[0] == 8 and "cannot be read" in genome("fsck")[1]


def test_refused_lines_are_tried_again(genome: Callable[..., Any], filled: Home, drop: Any, correction: Any) -> None:
    """--retry puts those that can be read by now into the inbox, and says why the others stay."""
    drop(correction(0, personaId=None), b"nope")
    found = next(intake.drops(filled, Scan(NOW, 0)))
    Buffer(filled, Intake()).commit(list(Reading(found, intake.NOTHING, True, 1 << 20).chunks()), NOW)
    assert json.loads(genome("buffer", "rejected", "--retry", "--json")[1])["retried"] == 0
    filled.config.write_text(f"{filled.config.read_text()}\n[intake]\ndefault_persona = 'helper'\n")
    code, out, _ = genome("buffer", "rejected", "--retry")
    assert code == 0 and "1 lines were given to the inbox again, 1 stay rejected" in out
    assert "nope" not in out and len(list((filled.inbox / "helper" / "git").iterdir())) == 1
    assert "1 rejected lines" in genome("buffer", "rejected")[1]


def test_prune_says_what_it_would_do_and_does_it(
    genome: Callable[..., Any], home: Home, base_path: Path, signal: Any, drop: Any, monkeypatch: Any
) -> None:
    """--dry-run touches nothing; what it named is then done, once, and the home is whole."""
    config.init(home, str(base_path))
    whole_home.make(home, signal, drop, monkeypatch)
    code, out, _ = genome("prune", "--dry-run", "--json")
    would = json.loads(out)["acts"]
    assert code == 0 and {act["act"] for act in would} == {"remove", "compress"}
    assert all(Path(act["path"]).exists() for act in would)
    assert json.loads(genome("prune", "--json")[1])["acts"] == would
    assert not any(Path(act["path"]).exists() for act in would)
    assert genome("prune")[1] == "there is nothing to do\n" and genome("fsck")[0] == 0


def test_an_adapter_is_written_out_for_other_programs(
    genome: Callable[..., Any], home: Home, signal: Any, drop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it lies here or as mlx-lm reads it, whole, into a directory that was not there; a damaged one stays here."""
    whole_home.make(home, signal, drop, monkeypatch)
    here, peft, mlx = home.adapter("helper/git-v1.1"), tmp_path / "peft", tmp_path / "out" / "mlx"
    assert genome("adapter", "export", "helper/git-v1.1", "--to", str(peft))[0] == 0
    assert {path.name: path.read_bytes() for path in peft.iterdir()} == {
        path.name: path.read_bytes() for path in here.iterdir()
    }
    code, out, _ = genome("adapter", "export", "helper/git-v1.1", "--format", "mlx", "--to", str(mlx), "--json")
    assert code == 0 and json.loads(out)["path"] == str(mlx)
    ((path, theirs),), ((same, ours),) = lora.read(mlx).modules.items(), lora.read(here).modules.items()
    assert path == same and theirs.scaling == ours.scaling
    assert bytes(theirs.a.data) == bytes(ours.a.data) and bytes(theirs.b.data) == bytes(ours.b.data)
    assert genome("adapter", "export", "helper/git-v1.1", "--format", "mlx", "--to", str(mlx))[0] == 5
    assert genome("adapter", "export", "helper/git-v9.9", "--to", str(tmp_path / "none"))[0] == 4
    (tmp_path / "file").touch()
    for nowhere in (Path("/proc/x"), tmp_path / "file" / "x"):  # also for root, who may write nearly everywhere
        code, _, error = genome("adapter", "export", "helper/git-v1.1", "--to", str(nowhere))
        assert code == 3 and f"{nowhere} cannot be written" in error
    weights = bytearray((here / lora.PEFT_WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (here / lora.PEFT_WEIGHTS).write_bytes(weights)
    code, _, error = genome("adapter", "export", "helper/git-v1.1", "--to", str(tmp_path / "damaged"))
    assert code == 3 and "changed since it was made" in error and not (tmp_path / "damaged").exists()


def test_history_says_who_when_why_and_by_which_numbers(
    genome: Callable[..., Any], home: Home, signal: Any, drop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every act: a person is named with their machine, feedback as that; what was withdrawn needs force."""
    whole = whole_home.make(home, signal, drop, monkeypatch)
    home.config.write_text('base = "x"\n')
    registry.withdraw(whole, "helper/git-v1.2", time.time(), "worse by 9 points", {"e_value": 120.5})
    assert genome("adapter", "pin", "--persona", "helper", "--reason", "exam week")[0] == 0
    assert genome("adapter", "pin", "--persona", "helper")[0] == 5
    code, _, error = genome("adapter", "deploy", "helper/git-v1.2")
    assert code == 5 and "worse by 9 points" in error and "--force" in error
    assert genome("adapter", "deploy", "helper/git-v1.2", "--force")[0] == 0
    assert genome("adapter", "unpin", "--persona", "helper")[0] == 0
    assert genome("adapter", "rollback", "--persona", "helper", "--reason", "too wordy")[0] == 0
    code, listed, _ = genome("adapter", "history", "--persona", "helper", "--json")
    kinds = ["promote", "promote", "rollback", "pin", "deploy", "unpin", "rollback"]
    records = json.loads(listed)
    assert [record["kind"] for record in records] == kinds
    assert [record["by"] for record in records[:3]] == ["gate", "gate", "feedback"]
    assert all("@" in record["by"] for record in records[3:])
    shown = " ".join(genome("adapter", "history", "--persona", "helper")[1].split())
    assert "e_value 120.5" in shown and "exam week" in shown and "deploy, pinned" in shown and "too wordy" in shown


def test_tables_are_whole_in_a_pipe_and_on_a_narrow_screen(
    genome: Callable[..., Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other verbs take the ids that stand in them. A row is a line, also of a reason of several."""
    monkeypatch.setenv("COLUMNS", "40")
    long, reason = f"helper-{'x' * 56}/git-v1.0", "why\nit " + "w" * 200
    options.table(["adapter", "job", "reason"], [[long, "job-2025-11-20-001", reason], ["a/b-v1.0", None, "short"]])
    header, first, second = capsys.readouterr().out.splitlines()
    assert first == f"{long}  job-2025-11-20-001  why it {'w' * 200}"
    assert header.index("job") == first.index("job-") and second.endswith("short")
    assert second.index("short") == first.index("why") == header.index("reason")


def test_buffer_status_lists_the_batches_that_other_verbs_take(genome: Callable[..., Any], filled: Home) -> None:
    """Those that are queued and those that were set aside, with why."""
    batch = json.loads(genome("buffer", "flush", "--persona", "helper", "--domain", "git", "--json")[1])["batch"]
    said = genome("buffer", "status")[1]
    assert [line.split()[:4] for line in said.splitlines() if batch in line] == [["queued", batch, "helper", "git"]]
    batches.set_aside(filled, batches.find(filled, batch), "recall: 0.5 kept")
    said = genome("buffer", "status")[1]
    assert next(line for line in said.splitlines() if batch in line).endswith("recall: 0.5 kept")
    (row,) = json.loads(genome("buffer", "status", "--json")[1])["domains"]
    assert row["batches"] == [{"batch": batch, "state": "set aside", "reason": "recall: 0.5 kept"}]


@pytest.mark.parametrize(
    "verb",
    [
        ("adapter", "history", "--persona", "typo"),
        ("adapter", "pin", "--persona", "typo"),
        ("adapter", "unpin", "--persona", "typo"),
        ("metric", "show", "--persona", "typo"),
        ("metric", "show", "--persona", "helper", "--domain", "typo"),
        ("metric", "show", "--metric", "typo"),
    ],
)
def test_a_name_that_nobody_knows_is_an_error(genome: Callable[..., Any], filled: Home, verb: tuple[str, ...]) -> None:
    """It names those that are known; an empty answer would look like one."""
    code, out, error = genome(*verb)
    assert code == 4 and out == "" and "typo" in error
    assert ("user_satisfaction" if "--metric" in verb else "helper/git") in error


def test_a_known_name_without_anything_to_show_is_no_error(genome: Callable[..., Any], filled: Home) -> None:
    """It has signals, and was never served."""
    assert genome("adapter", "history", "--persona", "helper")[:2] == (0, "helper was never served with an adapter\n")
    assert genome("metric", "show", "--persona", "helper")[0] == 0
    assert genome("metric", "show", "--metric", "user_satisfaction")[0] == 0


def test_a_value_that_versions_cannot_be_compared_by_is_noted(genome: Callable[..., Any], filled: Home) -> None:
    """It is taken, and said on standard error; only of the metric of the config."""
    filled.config.write_text(filled.config.read_text() + "\n[feedback]\nmetric = 'csat'\n")
    of = ("metric", "report", "--persona", "helper", "--domain", "git", "--json")
    code, out, error = genome(*of, "--metric", "csat", "--value", "7")
    assert code == 0 and Path(json.loads(out)["file"]).exists() and "from 0 to 1, and 7 is not" in error
    assert genome(*of, "--metric", "csat", "--value", "0.7")[2] == ""
    assert genome(*of, "--metric", "seconds", "--value", "7")[2] == ""
