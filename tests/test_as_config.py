"""Objects as the configs that build them again."""

import pytest
import torch

from micronet_cli.as_config import as_config
from micronet_cli.compression.pruning.pruner import Pruner
from micronet_cli.compression.quantization.bits_rules import BitsRule
from micronet_cli.compression.quantization.quantizer import Quantizer
from micronet_cli.compression.quantization.weight_quantizers import WeightLSQ
from micronet_cli.config import build
from micronet_cli.functional.granularity import NM, Element
from micronet_cli.functional.pruning import magnitude
from micronet_cli.functional.schedules import AGP

RULES = {"all": {"match": ".*", "sparsity": 0.5}}
COMPRESSORS = {
    "pruner": Pruner(RULES, schedule=AGP(end=0.25), granularity=NM(2, 4)),
    "quantizer": Quantizer({"all": BitsRule(".*", weight_bits=None)}, 8, weight=WeightLSQ()),
}


@pytest.mark.parametrize("compressor", COMPRESSORS.values(), ids=COMPRESSORS)
def test_an_object_comes_back(compressor):
    config = as_config(compressor, "x")
    assert build(config, "x") == compressor
    assert as_config(build(config, "x"), "x") == config


def test_functions_and_classes_are_dotted_paths():
    assert as_config({"a": (magnitude, AGP)}, "x") == {
        "a": ["micronet_cli.functional.pruning.magnitude", "micronet_cli.functional.schedules.AGP"]
    }


def test_an_object_without_values_is_its_class():
    assert as_config(Element(), "x") == {"_target_": "micronet_cli.functional.granularity.Element"}


@pytest.mark.parametrize("value", [lambda weight: weight, torch.ones(1)], ids=["lambda", "tensor"])
def test_what_no_file_can_name_is_refused_with_its_place(value):
    with pytest.raises(ValueError, match=r"x\.importance.*: cannot be written into a file"):
        as_config({"importance": value}, "x")
