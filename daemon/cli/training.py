"""`genome training`: jobs, by hand."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.cli import options
from daemon.cli.options import DomainOption, HomeOption, JsonOption, PersonaOption

app = typer.Typer(help="Training jobs, by hand.", no_args_is_help=True)
EXIT_BELOW_QUALITY = 9


@app.command(epilog="Example: genome training prepare --persona helper-ai --domain typescript")
def prepare(persona: PersonaOption, domain: DomainOption, home: HomeOption = None, json: JsonOption = False) -> None:
    """Write the job of what is pending, held back: look at its train.jsonl, then start it."""
    from daemon import actions
    from genome import jobs

    at, config = options.opened(home)
    made = actions.prepare(at, config, persona, domain)
    path = jobs.find(at, made.job).path
    text = f"{made.job} is held in {path}\nStart it with: genome training start --job {made.job}"
    options.answer({"batch": made.batch, "job": made.job, "path": str(path)}, json, text)


@app.command(epilog="Example: genome training start --persona helper-ai --domain typescript")
def start(
    persona: Annotated[str, typer.Option(help="Whose pending signals to train now.")] = "",
    domain: Annotated[str, typer.Option(help="Of which subject.")] = "",
    job: Annotated[str, typer.Option(help="A held job to go on with, or a failed one to try again.")] = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow it to its verdict: exits with 0 if promoted, 9 if refused.")
    ] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Train now: what is pending in a domain, or a job that is held or failed. The daemon runs it."""
    from daemon import actions
    from daemon.cli import following
    from genome import files
    from genome.errors import InvalidInput

    if not job and not (persona and domain):
        raise InvalidInput("it is not said what to train", "Give --persona and --domain, or --job")
    at, config = options.opened(home)
    started = actions.start(at, config, persona, domain, job)
    if wait:
        if not files.is_held(at.daemon_lock):
            print(f"genome: no daemon runs; {started.job} waits for one: genome run", file=sys.stderr)
        found = following.to_the_verdict(at, started.job)
        options.answer(found, json, f"{started.job} was {found['state']}: {found['reason']}")
        if found["state"] == "refused":
            raise typer.Exit(EXIT_BELOW_QUALITY)
        return
    text = (
        f"{started.job} of {started.batch} runs as soon as the daemon can: genome training status {started.job} --watch"
    )
    options.answer({"batch": started.batch, "job": started.job}, json, text)


@app.command(epilog="Example: genome training stop job-2026-11-20-001")
def stop(
    job: Annotated[str, typer.Argument(help="Its id.")], home: HomeOption = None, json: JsonOption = False
) -> None:
    """Hold a job. A running one stops at a checkpoint; `training start --job` goes on from there."""
    from genome import jobs

    jobs.hold(options.existing(home), job)
    options.answer({"job": job, "state": "held"}, json, f"{job} is held; a running daemon stops it at a checkpoint")


@app.command(epilog="Example: genome training bisect batch-2026-11-20-001 --max-probes 12")
def bisect(
    batch: Annotated[str, typer.Argument(help="Id of a batch that was set aside.")],
    max_probes: Annotated[
        int | None, typer.Option(help="Trainings to spend at most, 16 at first; with more it goes on.", min=2)
    ] = None,
    smallest: Annotated[int, typer.Option(help="Signals to name together, without halving further.", min=1)] = 8,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Find the signals of a refused batch that break the gate, by training parts of it. Asked again: what was found."""
    from daemon import searcher

    found = searcher.ask(options.existing(home), batch, max_probes, smallest)
    options.answer(found, json, searcher.said(found))


@app.command(epilog="Example: genome training status job-2026-11-20-001 --watch")
def status(
    job: Annotated[str, typer.Argument(help="Its id. Default: every job.")] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Follow its progress to the end of the training.")] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """What the jobs are doing, and how ended ones ended."""
    from daemon.cli import following
    from genome import files, jobs

    at = options.existing(home)
    if watch:
        following.to_the_end_of_training(at, (jobs.find(at, job) if job else _newest(at)).id)
    with files.locked(at.lock):  # the daemon moves what has ended
        directories = [jobs.find(at, job)] if job else [*jobs.active(at), *jobs.completed(at)]
        found = [jobs.summary(directory) for directory in directories]
    if json:
        return options.answer(found, True, "")
    options.table(
        ["job", "persona", "domain", "trainer", "state", "step", "loss", "adapter", "reason"],
        [[row["job"], row["persona"], row["domain"], row["trainer"], row["state"],
          f"{row['step']}/{row['steps'] or '?'}",
          f"{row['loss']:.3f}" if row["loss"] is not None else "", row["adapter"], row["reason"]] for row in found],
    )  # fmt: skip
    return None


@app.command(epilog="Example: genome training show job-2026-11-20-001")
def show(
    job: Annotated[str, typer.Argument(help="Its id.")], home: HomeOption = None, json: JsonOption = False
) -> None:
    """All that is known of one job's training: settings, loss curve, speed, memory, starts and stops."""
    from daemon.cli import reporting
    from genome import files, jobs, runs

    at = options.existing(home)
    with files.locked(at.lock):  # the daemon moves what has ended
        found = runs.described(jobs.find(at, job))
    options.answer(found, json, "" if json else reporting.text(found, shutil.get_terminal_size().columns))


@app.command(epilog="Example: genome training verdict job-2026-11-20-001")
def verdict(
    job: Annotated[str, typer.Argument(help="Its id.")], home: HomeOption = None, json: JsonOption = False
) -> None:
    """What the gate found of a job's candidate: every number, what was required, and what decided."""
    from genome import jobs
    from genome.errors import NotFound
    from genome.quality import Verdict

    directory = jobs.find(options.existing(home), job)
    if not directory.verdict_file.exists():
        raise NotFound(f"{job} has no verdict yet; it is {directory.state()}", "The gate judges it when it is trained")
    found = Verdict.read(directory.verdict_file)
    if json:
        return options.answer(found.model_dump(exclude={"record_schema"}), True, "")
    options.table(
        ["finding", "", "value", "at least", "required", "questions", "against"],
        [[each.name, "passed" if each.passed else "undecided" if each.undecided else "failed", f"{each.value:.3f}",
          f"{each.low:.3f}", f"{each.required:g}", each.questions,
          each.against or ", ".join(found.incumbent) or "the base"] for each in found.findings],
    )  # fmt: skip
    print(f"{found.candidate}: {'promoted' if found.promote else 'not promoted'}; {found.reason}")
    return None


@app.command(epilog="Example: genome training validate --adapter ai/git-v1.0 --test-set test.jsonl --min-quality 0.9")
def validate(
    adapter: Annotated[str, typer.Option(help="Its id.")],
    test_set: Annotated[Path, typer.Option(help="JSONL of questions with answers, in any shape signals have.")],
    min_quality: Annotated[float, typer.Option(help="Exit with 9 below this.")] = 0.0,
    metric: Annotated[str, typer.Option(help="exact_match or token_accuracy.")] = "exact_match",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Score an adapter on a test set, beside the base, on the running worker."""
    import anyio

    from daemon import evaluation

    at, config = options.opened(home)
    report = anyio.run(evaluation.validate, at, config, adapter, test_set)
    quality: dict[str, Any] = report["adapter"]
    if metric not in quality:
        raise typer.BadParameter(f"{metric} is none of {', '.join(quality)}")
    said = [f"{name}: {value:.4f} (base {report['base'][name]:.4f})" for name, value in quality.items()]
    options.answer(report, json, "\n".join([f"{report['questions']} questions", *said]))
    if quality[metric] < min_quality:
        raise typer.Exit(EXIT_BELOW_QUALITY)


@app.command(epilog="Example: genome training rebuild --persona helper-ai --domain typescript")
def rebuild(persona: PersonaOption, domain: DomainOption, home: HomeOption = None, json: JsonOption = False) -> None:
    """Train what is served again: without what was retracted, from the newest clean version; else from the base."""
    from daemon import actions

    batch = actions.rebuild(options.existing(home), persona, domain)
    start = batch.parent or "the base"
    text = f"{batch.id} trains {len(batch.rebuilds)} batches again, from {start}; a running daemon does it now"
    options.answer({"batch": batch.id, "parent": batch.parent, "rebuilds": batch.rebuilds}, json, text)


def _newest(home: Any) -> Any:
    from genome import jobs
    from genome.errors import NotFound

    found = jobs.active(home)
    if not found:
        raise NotFound("no job is active", "genome training status lists the ended ones")
    return found[-1]
