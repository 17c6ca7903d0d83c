"""Guards what targets of one's own give: a thing of another kind is named before the run begins."""

from types import SimpleNamespace
from typing import NamedTuple

import pytest
from omegaconf import OmegaConf

from micronet_cli.compression.pruning.pruner import Pruner
from micronet_cli.data.datasets import Digits
from micronet_cli.errors import UserError
from micronet_cli.scoring.official import Official
from micronet_cli.scoring.rules import Rules
from micronet_cli.stages.kinds import check_kinds

RIGHT = {"data": Digits(), "prune": Pruner({}), "quantize": Pruner({}), "score": Official(), "logger": None}
CONFIG = OmegaConf.create({group: {"_target_": "mypkg.Mine"} for group in RIGHT})


class Wrong(NamedTuple):
    group: str
    thing: object
    said: str


WRONG = {
    "data": Wrong(
        "data", SimpleNamespace(loader=1),
        "a data set must have batch_size, class_names, input_size, problems, sample",
    ),
    "a number": Wrong("data", 3, "a data set must have batch_size, class_names, input_size, loader, problems, sample"),
    "compressor": Wrong("prune", SimpleNamespace(attach=1, update=1), "a compressor must have reads_gradients, table"),
    "nothing": Wrong("quantize", None, "gives nothing; it must be a compressor"),
    "rules without charges": Wrong("score", Rules(), "a rule set must have storage, math"),
    "rules": Wrong("score", SimpleNamespace(), "must be a subclass of micronet_cli.scoring.rules.Rules"),
}  # fmt: skip


def test_what_is_of_its_kind_passes_and_so_does_a_group_that_is_off():
    check_kinds(RIGHT, CONFIG)
    check_kinds({"prune": None, "quantize": None}, OmegaConf.create({"prune": None, "quantize": {}}))
    check_kinds({}, CONFIG)


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG.keys())
def test_another_kind_is_named_with_its_target(case):
    with pytest.raises(UserError) as caught:
        check_kinds(RIGHT | {case.group: case.thing}, CONFIG)
    assert str(caught.value) == f"{case.group}._target_=mypkg.Mine: {case.said}; see docs/extending.md"


def test_the_command_line_answers_it(mistake):
    said = mistake("stage=train", "model=resnet8", "data=digits", "quantize._target_=builtins.dict")
    assert "quantize._target_=builtins.dict: a compressor must have attach, reads_gradients, table; see docs" in said
