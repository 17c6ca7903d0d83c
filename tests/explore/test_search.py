"""Guards what may be searched, the mistakes that are answered, and whole searches that are stopped and gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import pytest

from micronet_cli.command.cli import main
from micronet_cli.errors import UserError
from micronet_cli.explore.search import Choices, Interval, Search, dimensions
from tests.conftest import TINY, metrics_of

pytest.importorskip("optuna")
OBJECTIVES = {"top1": "maximize", "micronet_score": "minimize"}
SEARCH = ("stage=search", *TINY, "trainer.max_steps=2")


def search(trials=6, **options):
    space = {"a": {"low": 0.0, "high": 1.0}, "b": ["x", "y"]}
    return Search(**{"space": space, "trials": trials, "objectives": OBJECTIVES} | options)


def objectives(settings):
    """A trade-off by hand: a buys top1 with score, y is worse than x in both."""
    worse = settings["b"] == "y"
    return [100 * settings["a"] - worse, settings["a"] + worse]


def go_on(study, most=1000):
    asked = []
    while len(asked) < most and (proposal := study.next()) is not None:
        asked.append((proposal.number, proposal.settings))
        study.tell(proposal, objectives(proposal.settings), {"number": proposal.number})
    return asked


def summary_of(run):
    return json.loads((run / "summary.json").read_text())


def test_space_takes_choices_and_ranges_dotted_or_nested():
    space = {
        "prune": {"rules.conv.sparsity": {"low": 0.5, "high": 0.9}},
        "bits": [2, 4, None],
        "x": None,
    }
    assert dict(dimensions(space)) == {
        "prune.rules.conv.sparsity": Interval(0.5, 0.9),
        "bits": Choices((2, 4, None)),
    }


class Wrong(NamedTuple):
    """Options of a search that are refused, and what is said."""

    options: dict
    message: str


NO_SEARCH = {
    "empty range": Wrong({"space": {"a": {"low": 2, "high": 1}}}, "space.a=.*: low must be below high"),
    "log of zero": Wrong({"space": {"a": {"low": 0, "high": 1, "log": True}}}, "log needs low above 0"),
    "no number": Wrong({"space": {"a": {"low": 0, "high": "b"}}}, "low, high and step must be finite numbers"),
    "half a range": Wrong({"space": {"a": {"low": 0}}}, "a list of plain values or"),
    "list of lists": Wrong({"space": {"a": [[1]]}}, "a list of plain values or"),
    "one value": Wrong({"space": {"a": 3}}, "a list of plain values or"),
    "no setting": Wrong({"space": {"a": None}}, "must hold at least one setting"),
    "no objective": Wrong({"objectives": {"top1": None}}, "at least one figure"),
    "no trial": Wrong({"trials": 0}, "trials=0: must be at least 1"),
}


@pytest.mark.parametrize("wrong", NO_SEARCH.values(), ids=NO_SEARCH.keys())
def test_what_is_no_search_is_refused(wrong):
    with pytest.raises(ValueError, match=wrong.message):
        search(**wrong.options)


def test_objective_that_no_run_has_names_near_ones():
    with pytest.raises(UserError, match=r"search\.objectives\.micronet_scor: no such figure.*micronet_score"):
        search(objectives={"micronet_scor": "minimize"}).values({"micronet_score": 0.1})


def test_missing_optuna_is_answered_with_the_extra(mistake, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install 'micronet-cli[search]'" in mistake(*SEARCH)


class Mistake(NamedTuple):
    """What is typed, and what is said."""

    argument: str
    message: str


MISTAKES = {
    "key of a rule": Mistake(
        "search.space.prune.rules.conv.sparsty=[0.1]", "prune.rules.conv.sparsty: unknown key; did you mean sparsity"
    ),
    "value at an end": Mistake(
        "search.space.prune.rules.conv.sparsity.high=1.5", "prune.rules.conv.sparsity=1.5: must be a fraction"
    ),
    "option": Mistake("search.space.quantize=[w4a4,w8a9]", "quantize=w8a9: no such option; did you mean w8a8"),
    "stage": Mistake("search.stage=prun", "stage=prun: no such option; did you mean prune"),
    "sampler": Mistake("search.sampler=TPE", "search.sampler='TPE': must be TPESampler or"),
    "key of the search": Mistake("search.trial=3", "search.trial: unknown key; did you mean trials"),
    "key of a trial": Mistake("trainer.epoch=3", "trainer.epoch: unknown key"),
}


@pytest.mark.parametrize("wrong", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistake_is_answered_before_the_first_trial(mistake, tmp_path, wrong):
    assert wrong.message in mistake(*SEARCH, wrong.argument)
    assert not list(tmp_path.rglob("study.db"))


def test_two_trials(micronet):
    run = micronet(
        "stage=search", *TINY, "search.stage=score", "prune=agp", "search.trials=2", "search.objectives.top1=null",
        "search.objectives.math_ops=minimize",
    )  # fmt: skip
    metrics, rows = metrics_of(run), summary_of(run)
    assert (metrics["status"], metrics["trials"]) == ("completed", 2)
    assert [row["math_ops"] for row in rows] == [metrics_of(run / n)["math_ops"] for n in "01"]
    assert [row["number"] for row in rows if row["pareto"]] == sorted(metrics["pareto"])
    assert rows[0]["overrides"][1].startswith("prune.rules.conv.sparsity=0.")


@pytest.mark.slow
def test_failed_trial_is_reported_and_a_second_go_runs_only_it(micronet, capsys, tmp_path):
    data = tmp_path / "data"
    arguments = (*SEARCH, "search.trials=4", "search.space.prune.rules=null", "search.sampler=RandomSampler", "seed=6")
    arguments += (f"search.space.init_from=[null,'{data}',null]",)
    with pytest.raises(SystemExit) as caught:
        micronet(*arguments, directory=tmp_path / "search")
    said = capsys.readouterr().err
    rows = summary_of(tmp_path / "search")
    failed = [row["number"] for row in rows if row["status"] == "failed"]
    assert caught.value.code == 2
    assert said.startswith(f"micronet: {len(failed)} of 4 trials failed:")
    assert 0 < len(failed) < 4
    assert "no such file or directory" in rows[failed[0]]["reason"]
    before = {row["number"]: row["seconds"] for row in rows}

    micronet("stage=train", *TINY, "trainer.max_steps=1", directory=data)
    micronet(*arguments, "resume=true", directory=tmp_path / "search")
    rows = summary_of(tmp_path / "search")
    assert [row["status"] for row in rows] == ["completed"] * 4
    assert {row["number"] for row in rows if row["seconds"] != before[row["number"]]} == set(failed)
    assert any(row["pareto"] for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_search_that_was_stopped_goes_on(tmp_path, how):
    arguments = [
        "stage=search", *TINY, "trainer.epochs=2", "search.trials=2", f"hydra.run.dir={tmp_path}",
        "trainer.checkpoint_minutes=0",
    ]  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "micronet_cli.command.cli", *arguments], env={**os.environ})
    try:
        until = time.monotonic() + 300
        while (
            not (tmp_path / "1" / "resume" / "state.pt").is_file()
            and process.poll() is None
            and time.monotonic() < until
        ):
            time.sleep(0.02)
        process.send_signal(how)
        assert process.wait(300) == (130 if how == signal.SIGINT else -how)
    finally:
        process.kill()
    rows = summary_of(tmp_path)
    first = (tmp_path / "0" / "metrics.json").stat().st_mtime_ns
    main([*arguments, "resume=true"])
    assert [row["status"] for row in summary_of(tmp_path)] == ["completed"] * 2
    finished = summary_of(tmp_path)[0]
    finished.pop("test_top1", None)  # measured at the end, of the trials that were chosen
    assert finished == rows[0]
    assert (tmp_path / "0" / "metrics.json").stat().st_mtime_ns == first
    assert "resumed at step" in (tmp_path / "micronet.log").read_text()
