"""Guards the arguments as typed: what is no flag or has no value is answered in a line, and flags are completed."""

from pathlib import Path
from typing import NamedTuple

import pytest

from micronet_cli.command.arguments import check, complete_flag, flags, switches_first, take_config_dir
from micronet_cli.errors import UserError


class Taken(NamedTuple):
    arguments: list[str]
    left: list[str]
    directory: Path | None


TAKEN = {
    "two words": Taken(["a=1", "--config-dir", "mine", "b=2"], ["a=1", "b=2"], Path("mine")),
    "one word": Taken(["--config-dir=mine"], [], Path("mine")),
    "short": Taken(["-cd", "mine", "-m"], ["-m"], Path("mine")),
    "home": Taken(["--config-dir", "~/mine"], [], Path.home() / "mine"),
    "none": Taken(["a=1"], ["a=1"], None),
}


@pytest.mark.parametrize("case", TAKEN.values(), ids=TAKEN.keys())
def test_config_directory_is_taken_out(case):
    assert take_config_dir(case.arguments) == (case.left, case.directory)


def test_config_directory_must_be_given():
    with pytest.raises(UserError, match=r"--config-dir: must be followed by a directory"):
        take_config_dir(["stage=score", "--config-dir"])


def test_switches_come_first_and_the_rest_keeps_its_order():
    assert switches_first(["b=1", "-m", "a=2"]) == ["-m", "b=1", "a=2"]


class Refused(NamedTuple):
    arguments: list[str]
    said: str


REFUSED = {
    "a word": Refused(["init"], "init: must be GROUP=OPTION or KEY=VALUE, as stage=train; micronet --help lists them"),
    "a stage": Refused(
        ["train"], "train: must be GROUP=OPTION or KEY=VALUE; did you mean stage=train or stage=shrink?"
    ),
    "nearly a stage": Refused(["trani"], "trani: must be GROUP=OPTION or KEY=VALUE; did you mean stage=train?"),
    "a word among overrides": Refused(
        ["seed=1", "-m", "x"], "x: must be GROUP=OPTION or KEY=VALUE, as stage=train; micronet --help lists them"
    ),
    "a flag": Refused(["--cfgg", "job"], "--cfgg: no such flag; did you mean --cfg or --config-dir or --package?"),
    "a short flag": Refused(["-n"], "-n: no such flag; --hydra-help lists them"),
    "the beginning of flags": Refused(["--c"], "--c: no such flag; did you mean --cfg or --run or --package?"),
    "a flag's value": Refused(["--cfg", "jbo"], "--cfg: invalid choice: 'jbo' (choose from 'job', 'hydra', 'all')"),
    "a flag without its value": Refused(["--package"], "--package: expected one argument"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_what_hydra_would_answer_with_its_usage_is_a_mistake(case):
    with pytest.raises(UserError) as caught:
        check(case.arguments)
    assert str(caught.value) == case.said


GOOD = [[], ["seed=1", "-m"], ["--cfg", "job", "--resolve"], ["~prune"], ["+a=1"], ["--info", "config"]]


@pytest.mark.parametrize("arguments", GOOD, ids=str)
def test_arguments_that_hydra_takes_pass(arguments):
    check(arguments)


def test_flags_are_those_of_the_parser():
    assert {"--cfg", "--multirun", "--hydra-help", "--version"} <= set(flags())


def test_flag_is_completed_and_a_key_is_left_to_hydra(capsys):
    assert complete_flag("micronet --c")
    assert capsys.readouterr().out == "--cfg --config-path --config-name --config-dir\n"
    assert not complete_flag("micronet --cfg job sta")
    assert not complete_flag("micronet --cfg ")
    assert capsys.readouterr().out == ""
