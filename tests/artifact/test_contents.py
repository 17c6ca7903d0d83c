"""The account of a file adds up: streams to its size, layers to its streams, widths to what the sums need."""

import numpy as np
import pytest

from micronet_cli.artifact.contents import certificate, layer_bytes, stream_bytes
from micronet_cli.artifact.format import STREAMS, read
from micronet_cli.artifact.pack import pack
from micronet_cli.artifact.runtime import load
from micronet_cli.layers.effective_weight import original_weight
from tests.artifact.networks import W4A4, header, network


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "entropy"])
def file(request, tmp_path_factory):
    """Content of a file and the network loaded from it."""
    model = network(**W4A4)
    path = tmp_path_factory.mktemp("contents") / "n.mnet"
    path.write_bytes(pack(model, header(model, "resnet8", 16), request.param))
    loaded, _ = load(path, "path")
    return path.read_bytes(), loaded


def test_bytes_of_the_streams_add_up_to_the_file(file):
    content, _ = file
    found = stream_bytes(content)
    assert sum(part["bytes"] for part in found.values()) == len(content)
    assert list(found) == ["container", *STREAMS]
    assert found["sha256"] == {"bytes": 32, "raw_bytes": 32}


def test_raw_bytes_are_those_before_the_entropy_coder(file):
    content, _ = file
    found_header, raw = read(content)
    found = stream_bytes(content)
    assert {name: found[name]["raw_bytes"] for name in raw} == {name: len(part) for name, part in raw.items()}
    differing = {name for name, part in found.items() if part["bytes"] != part["raw_bytes"]}
    assert differing <= set(found_header["coded"])


def test_bytes_of_the_layers_add_up_to_their_streams(file):
    content, loaded = file
    _, raw = read(content)
    rows = layer_bytes(content, loaded)
    assert sum(row["position_bytes"] for row in rows.values()) == len(raw["masks"])
    coded = [row for row in rows.values() if row["levels"] is not None]
    assert sum(row["value_bytes"] for row in coded) == len(raw["codes"])
    assert sum(row["scale_bytes"] for row in rows.values()) == len(raw["scales"])


def test_rows_count_the_elements_of_their_layer(file):
    content, loaded = file
    for name, row in layer_bytes(content, loaded).items():
        weight = original_weight(loaded.get_submodule(name)).detach()
        assert row["elements"] == weight.numel()
        assert row["nonzeros"] == int((weight != 0).sum())
        assert row["levels"] is None or 2 <= row["levels"] <= 16
        assert row["positions"].split()[0] in ("all", "mask", "blocks", "groups")


def test_certificate_holds_for_the_largest_sum_of_each_layer(file):
    _, loaded = file
    found = certificate(loaded)
    assert len(found) == 7
    for name, row in found.items():
        layer = loaded.get_submodule(name)
        weights = original_weight(layer).detach().flatten(1).numpy().astype(np.int64)
        low, high = layer.input_fake_quantize.codes
        largest = np.where(weights > 0, weights * max(high, 0), weights * min(low, 0)).sum(1).max()
        assert largest < 2 ** (row["max_bits"] - 1)
        assert row["min_bits"] <= row["mean_bits"] <= row["max_bits"]
        assert row["exact_in"] == "float32"


def test_float_network_has_no_certificate_and_no_levels(tmp_path):
    model = network(sparsity=0.6)
    path = tmp_path / "n.mnet"
    path.write_bytes(pack(model, header(model, "resnet8", 16)))
    loaded, _ = load(path, "path")
    assert certificate(loaded) == {}
    rows = layer_bytes(path.read_bytes(), loaded)
    assert {row["levels"] for row in rows.values()} == {None}
    for row in rows.values():
        if row["positions"] == "mask":
            assert row["value_bytes"] == 4 * row["nonzeros"]
