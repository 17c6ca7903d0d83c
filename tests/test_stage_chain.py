"""The stages as a user chains them."""

import json

import pytest
import torch

import micronet_cli
from micronet_cli.checkpoint import load
from micronet_cli.layers.effective_weight import effective_weight
from micronet_cli.layers.rules import compressible_layers
from tests.conftest import TINY, history_of, metrics_of

KEYS = [
    "stage",
    "status",
    "top1",
    "top5",
    "loss",
    "images",
    "weight_sparsity",
    "weight_bits_mean",
    "activation_bits_mean",
    "micronet_score",
    "storage_params",
    "storage_bytes",
    "storage_score",
    "math_ops",
    "multiplications",
    "additions",
    "math_score",
    "mtas_bytes",
    "score_profile",
    "dense_storage_bytes",
    "dense_math_ops",
    "dense_score",
    "images_per_second",
    "wall_seconds",
    "seed",
    "overrides",
    "versions",
]


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """train -> prune -> qat -> score -> eval, each from the one before."""
    from micronet_cli.command.cli import main

    root = tmp_path_factory.mktemp("chain")

    def call(name, *arguments):
        main([*arguments, f"hydra.run.dir={root / name}"])

    call("train", "stage=train", *TINY, "trainer.epochs=3")
    call("prune", "stage=prune", f"init_from={root / 'train'}", "prune.rules.conv.sparsity=0.7", "trainer.epochs=1")
    call(
        "qat", "stage=qat", f"init_from={root / 'prune'}", "quantize=w4a4", "distill=soft_targets",
        f"distill.teacher.weights={root / 'train'}", "trainer.epochs=1",
    )  # fmt: skip
    call("score", "stage=score", f"init_from={root / 'qat'}")
    call("eval", "stage=eval", f"init_from={root / 'qat'}")
    return root


def test_metrics_hold_every_key(chain):
    for name in ("train", "prune", "qat", "eval"):
        metrics = metrics_of(chain / name)
        assert [key for key in KEYS if key not in metrics] == []
        assert metrics["status"] == "completed"


def test_accuracy_survives(chain):
    top1 = {name: metrics_of(chain / name)["top1"] for name in ("train", "prune", "qat")}
    assert top1["train"] > 85
    assert top1["qat"] > top1["train"] - 8


def test_test_split_is_counted_whole(chain):
    assert metrics_of(chain / "qat")["images"] == 359


def test_sparsity_is_exact_and_kept_by_quantisation(chain):
    for name in ("prune", "qat"):
        model = micronet_cli.load(str(chain / name))
        for layer, module in compressible_layers(model).items():
            zeros = int((module.weight == 0).sum())
            if layer == "conv1":
                assert effective_weight(module) is None
                continue
            # Quantisation may round more weights to zero, never fewer.
            wanted = round(module.weight.numel() * 0.7)
            assert zeros == wanted if name == "prune" else zeros >= wanted


def test_masks_of_the_pruned_network_stay(chain):
    pruned, quantised = (load(str(chain / name)).model for name in ("prune", "qat"))
    for layer, module in compressible_layers(pruned).items():
        if (weight := effective_weight(module)) is not None:
            other = effective_weight(quantised.get_submodule(layer))
            assert torch.equal(weight.mask, other.mask)


def test_quantised_weights_and_inputs_take_their_levels(chain):
    model = micronet_cli.load(str(chain / "qat"))
    inputs = {}
    for layer, module in compressible_layers(model).items():
        if layer == "conv1":
            continue
        for channel in module.weight.flatten(1):
            assert channel.unique().numel() <= 16
        module.register_forward_hook(lambda m, i, o, layer=layer: inputs.__setitem__(layer, i[0]))
    with torch.no_grad():
        model(torch.randn(8, 3, 16, 16))
    assert len(inputs) == 7
    assert all(seen.unique().numel() <= 16 for seen in inputs.values())


def test_eval_and_score_agree_with_the_training_run(chain):
    qat, evaluated, scored = (metrics_of(chain / name) for name in ("qat", "eval", "score"))
    assert evaluated["top1"] == qat["top1"]
    assert evaluated["micronet_score"] == qat["micronet_score"] == scored["micronet_score"]


def test_compression_lowers_the_score_each_time(chain):
    scores = [metrics_of(chain / name)["micronet_score"] for name in ("train", "prune", "qat")]
    assert scores == sorted(scores, reverse=True)
    assert scores[2] < 0.5 * scores[0]


def test_history_begins_within_the_first_epoch(chain):
    lines = history_of(chain / "train")
    assert lines[0]["kind"] == "step"
    assert lines[0]["epoch"] == 0
    assert {"loss", "top1", "lr", "images_per_second"} <= lines[0].keys()
    assert [line["epoch"] for line in lines if line["kind"] == "epoch"] == list(range(3))


def test_layers_csv_names_rules(chain):
    text = (chain / "prune" / "layers.csv").read_text()
    assert "layer1.0.conv1" in text
    assert "prune_rule" in text.splitlines()[0]


def test_run_directory_can_be_moved(chain, micronet, tmp_path):
    moved = tmp_path / "moved"
    (chain / "score").rename(moved)
    moved.rename(chain / "score")
    copied = tmp_path / "copy"
    import shutil

    shutil.copytree(chain / "qat", copied)
    run = micronet("stage=eval", f"init_from={copied}")
    assert metrics_of(run)["top1"] == metrics_of(chain / "qat")["top1"]


def test_used_directory_is_set_aside(micronet):
    run = micronet("stage=score", *TINY, "seed=1")
    micronet("stage=score", *TINY, "seed=2", directory=run)
    micronet("stage=score", *TINY, "seed=3", directory=run)
    seeds = [metrics_of(where)["seed"] for where in (run, run / "previous", run / "previous" / "previous")]
    assert seeds == [3, 2, 1]


def test_sweep_of_two_jobs(micronet, chain):
    where = micronet(
        "-m", "stage=prune", f"init_from={chain / 'train'}", "prune.rules.conv.sparsity=0.5,0.75", "trainer.max_steps=4"
    )
    found = [metrics_of(where / str(job)) for job in (0, 1)]
    assert [m["status"] for m in found] == ["completed", "completed"]
    assert found[0]["weight_sparsity"] < found[1]["weight_sparsity"]
    assert "prune.rules.conv.sparsity=0.75" in found[1]["overrides"]


def test_failed_job_does_not_stop_a_sweep(chain, mistake, tmp_path):
    said = mistake(
        "-m", "stage=prune", f"init_from={chain / 'train'}", "prune.rules.conv.sparsity=1.5,0.5", "trainer.max_steps=2"
    )
    assert "1.5" in said
    done = [json.loads(path.read_text())["status"] for path in sorted(tmp_path.rglob("metrics.json"))]
    assert "completed" in done


def test_pipeline_is_the_main_job(micronet):
    run = micronet(*TINY, "trainer.epochs=1")
    metrics = metrics_of(run)
    assert metrics["stage"] == "pipeline"
    assert metrics["weight_sparsity"] > 0.6
    assert [path.name for path in sorted(run.iterdir()) if path.name[0].isdigit()] == ["1_train", "2_prune", "3_qat"]
    assert (run / "summary.csv").read_text().count("\n") == 4
    final, top = (load(str(where)).model.state_dict() for where in (run / "3_qat", run))
    assert all(torch.equal(final[name], top[name]) for name in final)
    before = (run / "2_prune" / "metrics.json").stat().st_mtime_ns
    (run / "3_qat" / "metrics.json").unlink()
    micronet(*TINY, "trainer.epochs=1", "resume=true", directory=run)
    assert (run / "2_prune" / "metrics.json").stat().st_mtime_ns == before
    assert metrics_of(run)["top1"] == metrics["top1"]
