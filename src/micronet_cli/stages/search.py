"""``stage=search``: trials of another stage, each a run in a numbered directory; the Pareto front of their figures."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from micronet_cli import distributed
from micronet_cli.config import build, check_config
from micronet_cli.errors import Interrupted, UserError
from micronet_cli.explore.search import Plain, Search
from micronet_cli.explore.study import Proposal, Study, load_optuna
from micronet_cli.overrides import as_override, explain, free_key
from micronet_cli.runs.outcomes import Outcome, raise_for_failed, table, write_summary
from micronet_cli.stages.chosen import evaluate_chosen
from micronet_cli.stages.execute import execute_missing
from micronet_cli.stages.inherit import inherited
from micronet_cli.stages.job import Job
from micronet_cli.stages.node import stage_module
from micronet_cli.stages.shared_search import Wait, check_storage, opened, reached
from micronet_cli.tables import text_table

log = logging.getLogger(__name__)
ONE_PROCESS = True  # its trials may take several
Reported = Mapping[int, Mapping[str, Any]]  # a chosen trial's number -> figures of the split that is reported


def check(config: DictConfig) -> dict[str, Any]:
    """Check the search, and the configs of its trials at both ends of every setting.

    Raises:
        UserError: a line a mistake.
    """
    load_optuna()
    if distributed.started_by_launcher():
        raise UserError("stage=search: torchrun cannot start it; trainer.devices=N gives each trial N processes")
    search = build(config.search, "search")
    if search is None:
        raise UserError("search=none: stage=search needs search=default or a search of your own")
    # Trials are measured on search.split, so their own checks do not see eval.split as it was typed.
    evaluation = build(config.eval, "eval")
    problems: dict[str, None] = {}
    for end in (0, 1):
        settings = {key: values.ends[end] for key, values in search.dimensions.items()}
        try:
            _check_trial(search, settings)
        except UserError as error:
            problems |= dict.fromkeys(str(error).splitlines())
    if problems:
        raise UserError("\n".join(problems))
    check_storage(search, config)
    return {"search": search, "eval": evaluation}


def _check_trial(search: Search, settings: Mapping[str, Plain]) -> None:
    config = inherited(trial_config(search, settings))
    module = stage_module(config)
    own_check = getattr(module, "check", check_config)
    own_check(config)


def trial_config(search: Search, settings: Mapping[str, Plain]) -> DictConfig:
    """What the command line composes for ``search.stage`` and ``settings``, with all else as it was typed.

    Accuracies are those of ``search.split``: a split that chooses cannot be the one that is reported.

    Raises:
        UserError: no such stage or option.
    """
    hydra_config = HydraConfig.get()
    taken = {"stage", "search", *settings}
    overrides = [f"stage={search.stage}"]
    for override in hydra_config.overrides.task:
        key = override.lstrip("+~").partition("=")[0]
        about_search = key.startswith("search.")
        if key not in taken and not about_search:
            overrides.append(override)
    for key, value in settings.items():
        overrides.append(free_key(as_override(key, value)))
    try:
        config = hydra.compose(hydra_config.job.config_name, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"search: {explain(error)}") from None
    config.search = None
    config.eval.split = search.split
    return config


def run(job: Job) -> dict[str, Any]:
    """Ask, run, tell, until there have been enough trials.

    Raises:
        JobsFailed: a trial did.
    """
    with opened(job) as study:
        _run_trials(job, study)
        outcomes, front = summarise(job, study)
        return _conclude(job, study, outcomes, front)


def _run_trials(job: Job, study: Study) -> None:
    """Until there have been enough, and those of other workers have ended too."""
    wait = Wait(study.search)
    while True:
        with reached(study.search):
            proposal = study.next()
            others = study.others()
        if proposal is not None:
            _try(job, study, proposal)
            summarise(job, study)
        elif others:
            wait.once(others)
        else:
            return


def _conclude(job: Job, study: Study, outcomes: Sequence[Outcome], front: Sequence[int]) -> dict[str, Any]:
    split = study.search.split
    log.info("\n%s\n\nPareto front, chosen by %s:\n%s", table(outcomes), split, table(outcomes, front))
    reported = _report_chosen(job, study, outcomes, front)
    summarise(job, study, reported)
    directory = job.run.directory
    log.info("\nsearch: %s; summary: %s", directory, directory / "summary.csv")
    raise_for_failed(outcomes, "trial")
    return {
        "trials": len(outcomes),
        "pareto": front,
        "chosen_by": split,
    }


def _report_chosen(job: Job, study: Study, outcomes: Sequence[Outcome], front: Sequence[int]) -> Reported:
    """What the chosen networks reach on ``eval.split``, which had no say in choosing them.

    Empty where that is the split that chose, and where trials have no accuracy; images that are not there are named.
    """
    chosen_by = job.checked["search"].split
    split = job.checked["eval"].split
    column = f"{split}_top1"
    by_number = {outcome.number: outcome for outcome in outcomes}
    found: dict[int, dict[str, Any]] = {}
    rows = []
    for number in front:
        chosen = by_number[number]
        if split == chosen_by or "top1" not in chosen.metrics:
            continue
        try:
            top1 = _reported_top1(job, study, number, split)
        except UserError as error:
            log.warning("the chosen networks are not evaluated on %s: %s", split, error)
            break
        if top1 is None:
            where = chosen.directory
            log.warning("trial %d is not evaluated on %s: %s is not seen from here", number, split, where)
            continue
        found[number] = {column: top1}
        row = {"trial": number, f"{chosen_by} top1": f"{chosen.metrics['top1']:.2f}"}
        row[f"{split} top1"] = f"{top1:.2f}"
        rows.append(row)
    if rows:
        log.info("\nchosen by %s, reported on %s:\n%s", chosen_by, split, text_table(rows))
    return found


def _reported_top1(job: Job, study: Study, number: int, split: str) -> float | None:
    """What a chosen network reaches on ``split``; None where it lies on another machine, and that has not said it."""
    column = f"{split}_top1"
    with reached(study.search):
        known = study.reported(number)
        home = study.home(number, job.run.directory)
    if column in known:
        return known[column]
    if home is None:
        return None
    where = job.run.claim("chosen") / str(number)
    metrics = evaluate_chosen(home, split, where)
    with reached(study.search):
        study.report(number, {column: metrics["top1"]})
    return metrics["top1"]


def _try(job: Job, study: Study, proposal: Proposal) -> None:
    """Run one trial and tell the study how it ended."""
    search = study.search
    directory = job.run.claim(str(proposal.number))
    overrides = [f"stage={search.stage}"]
    for key, value in proposal.settings.items():
        overrides.append(as_override(key, value))
    outcome = Outcome(proposal.number, overrides, directory.name)

    def work() -> dict[str, Any]:
        config = trial_config(search, proposal.settings)
        config.resume = True  # what an attempt that was cut short left; a fresh search begins in an empty directory
        metrics = execute_missing(config, directory, overrides)
        search.values(metrics)
        return metrics

    log.info("trial %d: %s", proposal.number, " ".join(overrides))
    try:
        outcome.attempt(work, directory)
    except Interrupted:
        with reached(search):
            study.give_back(proposal)
        raise
    values = None
    if outcome.status == "completed":
        values = search.values(outcome.metrics)
    if outcome.status == "failed":
        log.error("trial %d failed: %s", proposal.number, outcome.reason)
    with reached(search):
        is_kept = study.tell(proposal, values, asdict(outcome))
    if not is_kept:
        log.warning("trial %d: another worker has taken it up; what was found out here is dropped", proposal.number)


def summarise(job: Job, study: Study, reported: Reported | None = None) -> tuple[list[Outcome], list[int]]:
    """Write the summary; the trials that ended, and the numbers of those on the Pareto front."""
    with reached(study.search):
        ended = study.ended()
        best = study.front()
        homes = study.homes()
    # Another worker may end one between the two questions.
    front = [number for number in best if number in ended]
    outcomes = []
    rows = []
    for number, note in ended.items():
        outcome = Outcome(**{**note, **homes.get(number, {})})
        outcomes.append(outcome)
        row = outcome.row()
        for objective in study.search.directions:
            row.setdefault(objective, outcome.metrics.get(objective))
        row["pareto"] = number in front
        if reported:
            row |= reported.get(number, {})
        rows.append(row)
    write_summary(job.run.directory, rows)
    return outcomes, front
