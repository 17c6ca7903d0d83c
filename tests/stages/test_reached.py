"""Guards what a pipeline says of its budget: kept or missed, by how much, for what accuracy, in which files."""

import pytest

from micronet_cli.stages.reached import Reached

DENSE = {"top1": 98.0, "micronet_score": 0.01}


def reached(asked, **final):
    name = {"micronet_score": "score"}.get(next(iter(final)), next(iter(final)))
    return Reached((name, asked), DENSE, {"top1": 97.5} | final)


def test_a_budget_is_kept_up_to_the_last_digit():
    exact = reached(0.001, micronet_score=0.001)
    assert exact.is_kept
    assert exact.metrics() == {
        "target": {"score": 0.001},
        "reached": {"score": 0.001},
        "budget_kept": True,
        "top1_drop": 0.5,
    }
    heads, cells = exact.table().splitlines()
    assert heads.split("  ")[0] == "budget"
    assert cells.split() == ["score", "0.01", "0.001", "0.001", "yes", "98.00", "97.50", "0.50"]


def test_a_missed_budget_is_said_with_what_would_help():
    missed = reached(2000, storage_bytes=2500)
    assert not missed.metrics()["budget_kept"]
    assert "NO" in missed.table()
    assert missed.table().splitlines()[1].split()[1] == "-"
    first, *others = missed.what_helps().splitlines()
    assert first == "budget.storage_bytes=2000 is missed: 2500 is reached, 25.0 % too much"
    assert "trainer.epochs" in " ".join(others)


def test_what_helps_a_missed_latency_is_about_engines():
    missed = reached(1.0, latency_ms=1.1)
    text = missed.what_helps()
    assert "budget.latency_ms=1 is missed: 1.1 is reached, 10.0 % too much" in text
    assert "latency.engines" in text
    assert "schedule" not in text


@pytest.fixture
def run(tmp_path):
    """A pipeline's directory, and those of its steps."""
    for name in ("checkpoints/best.safetensors", "1_train/checkpoints/best.safetensors", "2_export/model.mnet"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1234)
    return tmp_path, [tmp_path / "1_train", tmp_path / "2_export", tmp_path / "3_report"]


def test_files_are_the_final_network_s(run):
    directory, steps = run
    lines = reached(1, micronet_score=0.5).files(directory, steps).splitlines()
    assert [line.split() for line in lines] == [
        ["file", "bytes"],
        ["checkpoints/best.safetensors", "1,234"],
        ["2_export/model.mnet", "1,234"],
    ]
