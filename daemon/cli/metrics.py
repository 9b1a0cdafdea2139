"""`genome metric`: what applications measure of replies, and how the versions stand by it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli import options
from daemon.cli.options import DomainOption, HomeOption, JsonOption, PersonaOption

if TYPE_CHECKING:
    from genome.config import Config
    from genome.layout import Home

app = typer.Typer(help="What is measured of replies, and how versions stand by it.", no_args_is_help=True)


@app.command(
    epilog="Example: genome metric report --persona helper-ai --domain git --metric csat --value 0.8 "
    "--adapter helper-ai/git-v1.0"
)
def report(
    persona: PersonaOption,
    domain: DomainOption,
    metric: Annotated[str, typer.Option(help="Its name.")],
    value: Annotated[float, typer.Option(help="Versions are compared by values from 0 to 1, greater is better.")],
    adapter: Annotated[str, typer.Option(help="Id of the version that answered.")] = "",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Put one value into the inbox; the daemon takes it while it runs."""
    from daemon import actions

    at = options.existing(home)
    path = actions.report_metric(at, actions.Reported(persona, domain, metric, value, adapter))
    if not 0 <= value <= 1 and metric == _compared_by(at):
        print(f"genome: versions are compared by {metric} from 0 to 1, and {value:g} is not", file=sys.stderr)
    options.answer({"file": str(path)}, json, f"{metric} {value:g} of {persona}/{domain} is in the inbox: {path.name}")


@app.command(epilog="Example: genome metric show --persona helper-ai")
def show(
    persona: Annotated[str, typer.Option(help="Only this one's.")] = "",
    domain: Annotated[str, typer.Option(help="Only of this subject.")] = "",
    metric: Annotated[str, typer.Option(help="Only this one.")] = "",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Samples and mean of every version in the last `feedback.days`, and what follows of them."""
    at, config = options.opened(home)
    if persona or domain:
        options.check_known(at, persona, domain)
    versions, trials = _standings(at, config, (persona, domain, metric)), _trials(at, config, persona, domain)
    if json:
        return options.answer({"versions": versions, "trials": trials}, True, "")
    columns = ["persona", "domain", "metric", "version", "samples", "mean"]
    shown = [{**row, "version": row["version"] or "(none named)", "mean": f"{row['mean']:.3f}"} for row in versions]
    options.table(columns, [[row[column] for column in columns] for row in shown])
    for trial in trials:
        print(f"{trial['version']}: {trial['act']}. {trial['reason']}")
    return None


def _compared_by(home: Home) -> str:
    """The metric of the config; none, where there is no config that can be read."""
    from genome import config
    from genome.errors import InvalidConfig

    try:
        return config.load(home).feedback.metric
    except InvalidConfig:
        return ""


def _standings(home: Home, config: Config, only: tuple[str, str, str]) -> list[dict[str, Any]]:
    import time

    from genome.errors import NotFound
    from genome.feedback import DAY, SATISFACTION, Feedback

    persona, domain, metric = only
    feedback, since = Feedback(home, config.feedback.days), time.time() - config.feedback.days * DAY
    known = {name for at in home.domains() for name in feedback.metrics(*at)} | {config.feedback.metric, SATISFACTION}
    if metric and metric not in known:
        raise NotFound(f"no value of {metric} was reported", f"Known are: {', '.join(sorted(known))}")
    return [
        {"persona": at[0], "domain": at[1], "metric": name, "version": version,
         "samples": found.samples, "mean": found.mean}
        for at in home.domains()
        if at[0] == (persona or at[0]) and at[1] == (domain or at[1])
        for name in feedback.metrics(*at)
        if name == (metric or name)
        for version, found in feedback.by_version(*at, name, since).items()
    ]  # fmt: skip


def _trials(home: Home, config: Config, persona: str, domain: str) -> list[dict[str, Any]]:
    from daemon import monitor
    from genome import registry
    from genome.feedback import Feedback

    feedback = Feedback(home, monitor.span_days(config))
    personas = [promotion.persona for promotion in registry.newest(home)]
    judged = [
        each
        for name in personas
        if name == (persona or name)
        for each in monitor.judge(home, config, feedback, name)
        if each.trial.domain == (domain or each.trial.domain)
    ]
    return [
        {"version": each.trial.adapter, "predecessor": each.trial.predecessor, "canary": each.trial.canary,
         "act": each.act, "reason": each.reason, "numbers": each.numbers}
        for each in judged
    ]  # fmt: skip
