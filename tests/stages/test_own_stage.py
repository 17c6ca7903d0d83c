"""Guards a stage of one's own: it costs a module and a YAML; its keys, group, file and help line need no edit."""

import json
import sys
import types
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from micronet_cli.command.cli import main
from micronet_cli.stages.job import Job
from micronet_cli.stages.node import Stage
from tests.conftest import TINY, metrics_of

YAML = """\
# @package _global_
# micronet stage=count init_from=RUN stage.above=8  # parameters of large layers
defaults:
  - /ceiling: default
stage:
  name: count
  module: micronet_cli.stages.count
"""
CEILING = """\
_target_: micronet_cli.functional.schedules.AGP
"""


@dataclass(frozen=True)
class Node(Stage):
    """The node ``stage`` here."""

    above: int = 0

    def __post_init__(self) -> None:
        if self.above < 0:
            raise ValueError(f"above={self.above}: must be at least 0")


def run(job: Job[Node]) -> dict[str, object]:
    network = job.network(with_data=False)
    sizes = {name: p.numel() for name, p in network.model.named_parameters() if p.numel() > job.node.above}
    job.run.write_json("count.json", sizes)
    return {"parameters": sum(sizes.values()), "ceiling": type(job.checked["ceiling"]).__name__}


@pytest.fixture
def own(tmp_path, monkeypatch):
    module = types.ModuleType("micronet_cli.stages.count")
    module.run = run
    module.Node = Node
    monkeypatch.setitem(sys.modules, module.__name__, module)
    directory = tmp_path / "conf"
    for group, name, text in (("stage", "count", YAML), ("ceiling", "default", CEILING), ("ceiling", "none", "")):
        (directory / group).mkdir(parents=True, exist_ok=True)
        (directory / group / f"{name}.yaml").write_text(text)
    return directory


def test_own_stage_runs_with_its_key_its_group_and_its_file(own, micronet):
    where = micronet("stage=count", *TINY, "stage.above=1000", "--config-dir", str(own))
    metrics = metrics_of(where)
    assert metrics["stage"] == "count"
    assert metrics["ceiling"] == "AGP"
    sizes = json.loads((where / "count.json").read_text())
    assert min(sizes.values()) > 1000
    assert metrics["parameters"] == sum(sizes.values())


def test_own_group_may_be_none(own, micronet):
    where = micronet("stage=count", *TINY, "ceiling=none", "--config-dir", str(own))
    assert metrics_of(where)["ceiling"] == "NoneType"


class Mistake(NamedTuple):
    argument: str
    said: str


MISTAKES = {
    "key": Mistake("stage.abov=3", "stage.abov: unknown key; did you mean above"),
    "value": Mistake("stage.above=-1", "stage.above=-1: must be at least 0"),
    "group": Mistake("ceilin=3", "ceilin: unknown key; did you mean ceiling"),
}


@pytest.mark.parametrize("case", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_in_an_own_stage_are_answered(own, mistake, case):
    assert case.said in mistake("stage=count", *TINY, case.argument, "--config-dir", str(own))


def test_help_shows_the_own_stage_s_line(own, capsys):
    main(["--help", "--config-dir", str(own)])
    said = capsys.readouterr().out
    assert "  micronet stage=count init_from=RUN stage.above=8  # parameters of large layers\n" in said
    assert "  micronet stage=prune init_from=RUN" in said
    main(["--help"])
    assert "stage=count" not in capsys.readouterr().out
