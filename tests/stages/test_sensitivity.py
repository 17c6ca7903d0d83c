"""Guards ``stage=sensitivity``: its table and picture, what it refuses, the mistakes that it names."""

import csv

import pytest
from PIL import Image

from tests.conftest import TINY, metrics_of

SMALL = ("sensitivity.sparsities=[0.9]", "sensitivity.weight_bits=[2]", "sensitivity.activation_bits=[3]")


@pytest.mark.parametrize("method", ["evaluate", "estimate"])
def test_stage_writes_a_table_and_a_picture(micronet, capsys, method):
    run = micronet("stage=sensitivity", *TINY, *SMALL, "sensitivity.images=20", f"sensitivity.method={method}")
    with (run / "sensitivity.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 * 3
    assert ("top1_drop" in rows[0]) == (method == "evaluate")
    assert Image.open(run / "sensitivity.png").size[1] > 8 * 20
    assert {row["split"] for row in rows} == {"val"}
    assert metrics_of(run)["images"] == 20
    assert "layer1.0.conv1" in capsys.readouterr().out
    again = micronet("stage=sensitivity", f"init_from={run}", *SMALL, "sensitivity.images=20")
    assert (again / "sensitivity.csv").is_file()


def test_a_packed_network_is_refused(micronet, mistake):
    run = micronet("stage=eval", *TINY)
    packed = micronet("stage=export", f"init_from={run}") / "model.mnet"
    assert "is packed and stays as it is" in mistake("stage=sensitivity", f"init_from={packed}")


def test_sensitivity_names_mistakes(mistake):
    assert "sensitivity.sparsities=[1.5]" in mistake("stage=sensitivity", *TINY, "sensitivity.sparsities=[1.5]")
    assert "sensitivity.weight_bits=[0]" in mistake("stage=sensitivity", *TINY, "sensitivity.weight_bits=[0]")
    nothing = [f"sensitivity.{kind}=[]" for kind in ("sparsities", "weight_bits", "activation_bits")]
    assert "nothing to try" in mistake("stage=sensitivity", *TINY, *nothing)
    assert "sensitivity.method='guess': must be evaluate or estimate" in mistake(
        "stage=sensitivity", *TINY, "sensitivity.method=guess"
    )
