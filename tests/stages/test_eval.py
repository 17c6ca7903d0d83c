"""Guards ``stage=eval``: every image of the split once, the same figures again, and data that is not there."""

import pytest

from tests.conftest import TINY, metrics_of


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    from micronet_cli.command.cli import main

    run = tmp_path_factory.mktemp("eval") / "run"
    main(["stage=eval", *TINY, f"hydra.run.dir={run}"])
    return run


def test_checkpoint_of_an_evaluation_gives_the_same_figures(micronet, evaluated):
    again = metrics_of(micronet("stage=eval", f"init_from={evaluated}"))
    first = metrics_of(evaluated)
    for key in ("top1", "images", "split", "corrupt", "micronet_score"):
        assert again[key] == first[key]
    assert (first["split"], first["corrupt"]) == ("test", 0)
    assert (evaluated / "checkpoints" / "best.safetensors").is_file()


def test_another_split_is_evaluated_where_it_is_asked_for(micronet, evaluated):
    metrics = metrics_of(micronet("stage=eval", f"init_from={evaluated}", "eval.split=val"))
    assert metrics["split"] == "val"
    assert metrics["images"] != metrics_of(evaluated)["images"]


def test_split_without_data_is_a_mistake(mistake, image_folder):
    said = mistake("stage=eval", "model=resnet8", "data=imagefolder", f"data.train={image_folder}")
    assert said == "micronet: data.test: missing; give data.test=<directory or tar with a folder a class>\n"
