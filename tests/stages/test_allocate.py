"""Guards ``stage=allocate``: its rule files reach the target, and what it cannot read is named."""

import csv

import pytest

from tests.conftest import TINY, metrics_of


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    from micronet_cli.command.cli import main

    run = tmp_path_factory.mktemp("sensitivity")
    main(["stage=sensitivity", *TINY, "sensitivity.method=estimate", "sensitivity.images=32", f"hydra.run.dir={run}"])
    return run


def test_rule_files_reach_the_target_and_can_be_used(micronet, measured):
    dense = metrics_of(micronet("stage=score", f"init_from={measured}"))["micronet_score"]
    target = 0.2 * dense
    run = micronet("stage=allocate", f"init_from={measured}", f"budget.score={target}")
    reached = metrics_of(run)["micronet_score"]
    assert metrics_of(run)["chosen_by"] == "val"
    assert 0.95 * target < reached <= target
    rules = ("--config-dir", str(run / "rules"), "prune=budget", "quantize=budget")
    used = micronet("stage=score", f"init_from={measured}", *rules)
    assert metrics_of(used)["micronet_score"] == pytest.approx(reached)
    with (run / "layers.csv").open() as file:
        assert any(row.get("prune_rule") for row in csv.DictReader(file))
    trained = micronet("stage=prune", f"init_from={measured}", *rules, "trainer.max_steps=3", "prune.schedule.end=0.9")
    assert metrics_of(trained)["micronet_score"] == pytest.approx(reached, rel=0.02)


def test_a_budget_of_storage_without_quantisation(micronet, measured):
    run = micronet("stage=allocate", f"init_from={measured}", "quantize=none", "budget.storage_bytes=100000")
    assert 95_000 < metrics_of(run)["storage_bytes"] <= 100_000
    assert (run / "rules" / "prune" / "budget.yaml").is_file()
    assert not (run / "rules" / "quantize").exists()


def test_mistakes_are_named(mistake, measured, tmp_path):
    allocate = ("stage=allocate", f"init_from={measured}")
    assert "needs a target" in mistake(*allocate)
    assert "give trainer.devices=1" in mistake(*allocate, "budget.latency_ms=1", "trainer.devices=2")
    assert "budget.score=1e-09: must be at least 0.0" in mistake(*allocate, "budget.score=1e-9")
    assert "sensitivity.method=evaluate writes it" in mistake(*allocate, "budget.score=0.001", "budget.loss=top1_drop")
    assert "run stage=sensitivity first" in mistake("stage=allocate", *TINY, "budget.score=0.001")
    table = tmp_path / "sensitivity.csv"
    lines = (measured / "sensitivity.csv").read_text()
    table.write_text(lines[:-30])
    assert "not a table of stage=sensitivity" in mistake(*allocate, "budget.score=0.001", f"budget.table={table}")
    rows = list(csv.DictReader(lines.splitlines()))
    table.write_text(lines.replace(rows[0]["divergence"], "nan"))
    assert "divergence of conv1 is nan" in mistake(*allocate, "budget.score=0.001", f"budget.table={table}")
    table.write_text(lines.replace("layer1.0.conv1", "layer9.0.conv1"))
    assert "no layer 'layer9.0.conv1'" in mistake(*allocate, "budget.score=0.001", f"budget.table={table}")
    assert "nothing in it" in mistake(*allocate, "prune=none", "quantize=none", "budget.score=0.001")
