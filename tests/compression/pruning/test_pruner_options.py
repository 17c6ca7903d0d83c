"""Every shipped YAML on a network, without training."""

import pytest
import timm
import torch

from micronet_cli.config import build
from micronet_cli.functional.granularity import Block, Filter
from micronet_cli.layers.effective_weight import effective_weight
from micronet_cli.models import cifar_resnet  # noqa: F401
from micronet_cli.paths import CONF

OPTIONS = sorted({path.stem for path in (CONF / "prune").glob("*.yaml")} - {"none", "micronet2019"})


@pytest.mark.parametrize("option", OPTIONS)
def test_option_prunes_to_its_target_and_loads_into_the_same_structure(composed, option):
    config = composed("stage=prune", f"prune={option}").prune
    models = [timm.create_model("resnet8") for _ in range(2)]
    pruners = [build(config, "prune") for _ in models]
    for pruner, model in zip(pruners, models, strict=True):
        pruner.attach(model)
    assert pruners[0].update(1, 1)
    models[1].load_state_dict(models[0].state_dict())
    assert effective_weight(models[1].conv1) is None
    layer = models[1].layer2[0].conv1
    assert torch.equal(layer.weight, models[0].layer2[0].conv1.weight)
    unit = getattr(pruners[0], "granularity", None)
    wanted = pruners[1].table(models[1])["layer2.0.conv1"]["target_sparsity"]
    if option not in ("lamp", "taylor"):
        if isinstance(unit, Filter):
            dropped, units = int((layer.weight.flatten(1) == 0).all(1).sum()), layer.weight.shape[0]
        else:
            size = 16 if isinstance(unit, Block) else 1
            dropped, units = int((layer.weight == 0).sum()) / size, layer.weight.numel() / size
        assert dropped == round(units * wanted)
