"""Damaged, hostile and foreign files end in one error that names the file."""

import copy
import json
import resource
import sys
import time
import zlib

import numpy as np
import pytest
import torch

import micronet_cli
from micronet_cli.artifact.format import (
    DIGEST_BYTES,
    STREAMS,
    Cursor,
    Damaged,
    deflate,
    inflate,
    read,
    read_json,
    sizes,
    write,
)
from micronet_cli.artifact.pack import pack
from micronet_cli.errors import UserError
from tests.artifact.networks import header, network

HOSTILE = [
    None, True, -1, 0, 1, 2.5, 1e308, -(2**63), 2**31, 2**64, 10**30, "", "x" * 1000, "\0", "../../etc/passwd",
    "os.system", "hf-hub:a/b", "vit_giant_patch14_224", "resnet20", [], [[]], {}, {"_target_": "os.system"}, ["mask"],
    ["groups", 1, 16], ["blocks", 2**30, 1, 1, 1], ["all"], [2**40, 2**40], [0], {"depth": 10**9},
]  # fmt: skip


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "entropy"])
def content(request):
    model = network(weight_bits=4, activation_bits=4)
    return pack(model, header(model, "resnet8", 16), request.param)


def load(path, content):
    path.write_bytes(content)
    return micronet_cli.load(str(path))


def resealed(content, change):
    """The file after ``change(header, streams)``, with a checksum that fits."""
    found, streams = read(content)
    found = copy.deepcopy(found)
    coded = found.pop("coded")
    version = found.pop("format_version")
    streams = dict(streams)
    change(found, streams)
    again = {"format_version": version} | found
    return write(
        again, {name: [bytes(part)] for name, part in streams.items()} | {"sha256": [], "header": []}, bool(coded)
    )


def refused(path, content, match=None):
    with pytest.raises(UserError, match=match) as caught:
        load(path, content)
    said = str(caught.value)
    assert path.name in said
    assert len(said) < 1000
    assert len(said.splitlines()) <= 3
    return said


def test_file_is_safetensors_with_the_digest_at_its_end(content, tmp_path):
    from safetensors import safe_open

    (tmp_path / "n.safetensors").write_bytes(content)
    with safe_open(tmp_path / "n.safetensors", "np") as opened:
        assert sorted(opened.keys()) == sorted(STREAMS)
        assert opened.metadata() == {"format": "mnet"}
        assert opened.get_tensor("sha256").tobytes() == content[-DIGEST_BYTES:]
        told = json.loads(zlib.decompress(opened.get_tensor("header").tobytes()))
    assert told["format_version"] == 1
    assert told["classes"] == ["a", "b", "c"]


def test_header_says_little_beside_the_weights(content):
    assert len(read(content)[0]["layers"]) == 8
    assert len(zlib.compress(json.dumps(read(content)[0]).encode(), 9)) < 8192


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.99])
def test_truncated_file_is_one_error(content, tmp_path, share):
    refused(tmp_path / "n.mnet", content[: int(share * len(content))], "truncated or damaged")
    refused(tmp_path / "n.mnet", content[:-1], "truncated or damaged")


def test_foreign_file_is_one_error(tmp_path):
    refused(tmp_path / "n.mnet", b"PK\3\4" * 100, "not a packed network")
    refused(tmp_path / "n.mnet", b"", "not a packed network")


def test_newer_format_is_refused(content, tmp_path):
    def newer(found, streams):
        found["format_version"] = 2

    refused(tmp_path / "n.mnet", resealed(content, newer), "format 2 is newer than this program's 1")


CHANGES = {
    "another class": lambda h, s: h["model"].update(_target_="micronet_cli.runs.directory.set_aside"),
    "code in the model": lambda h, s: h["model"].update(_target_="os.system"),
    "code in the data": lambda h, s: h.update(data={"a": [{"_target_": "micronet_cli.runs.directory.write_bytes"}]}),
    "a file to read": lambda h, s: h["model"].update(args={"checkpoint_path": "secret"}),
    "a path": lambda h, s: h["model"].update(args={"variant": "/etc/passwd"}),
    "weights elsewhere": lambda h, s: h["model"].update(weights="elsewhere.pth"),
    "the hub": lambda h, s: h["model"].update(name="hf-hub:somebody/something"),
    "a giant": lambda h, s: h["model"].update(name="vit_giant_patch14_224"),
    "a wide net": lambda h, s: h["model"].update(args={"in_chans": 65536}),
    "another network": lambda h, s: h["model"].update(name="resnet20"),
    "no network": lambda h, s: h["model"].update(name="resnet2000"),
    "other classes": lambda h, s: h["classes"].append("d"),
    "a layer twice": lambda h, s: h["layers"].append(h["layers"][-1]),
    "a layer less": lambda h, s: h["layers"].pop(),
    "a foreign layer": lambda h, s: h["layers"][0].update(name="conv9"),
    "a foreign field": lambda h, s: h["layers"][0].update(code="x"),
    "wrong positions": lambda h, s: h["layers"][1].update(positions=["blocks", 4]),
    "huge blocks": lambda h, s: h["layers"][1].update(positions=["blocks", 1 << 30, 1, 1, 1]),
    "fewer bits": lambda h, s: h["layers"][1].update(bits=2),
    "other levels": lambda h, s: h["layers"][1].update(levels=9),
    "no scale": lambda h, s: h["layers"][1].pop("scales"),
    "a norm less": lambda h, s: h["removed"].pop(),
    "a norm twice": lambda h, s: h["removed"].append(h["removed"][0]),
    "no norm": lambda h, s: h["removed"].append("conv1"),
    "a range too many": lambda h, s: h["activations"].append(["layer1", "output", 4]),
    "a range elsewhere": lambda h, s: h["activations"][0].__setitem__(0, "layer9"),
    "a parameter too many": lambda h, s: h["parameters"].append(["x", [2]]),
    "a huge parameter": lambda h, s: h["parameters"].append(["conv1.weight", [1 << 40, 1 << 40]]),
    "nothing, hugely": lambda h, s: h["parameters"].insert(0, ["x", [0, 1 << 40, 1 << 40]]),
    "inputs of a norm": lambda h, s: h.update(channels=[{"outputs": {}, "inputs": {"bn1": [0]}}]),
    "no channel left": lambda h, s: h.update(
        channels=[{"outputs": {key: [*range(16)] for key in ("conv1", "bn1")}, "inputs": {}}]
    ),
    "a huge mean": lambda h, s: h["input"].update(mean=[10**400, 0, 0]),
    "means of four channels": lambda h, s: h["input"].update(mean=[0] * 4, std=[1] * 2),
    "no deviation": lambda h, s: h["input"].update(std=[1, 0, 1]),
    "a bad input": lambda h, s: h["input"].update(size=[3, 0, 16]),
    "bytes too few": lambda h, s: s.update(codes=s["codes"][:-1]),
    "bytes too many": lambda h, s: s.update(scales=s["scales"] + b"\0"),
    "no number": lambda h, s: s.update(parameters=b"\xff" * len(s["parameters"])),
    "a bad range": lambda h, s: s.update(activations=b"\xff" * len(s["activations"])),
}


@pytest.mark.parametrize("change", CHANGES)
def test_hostile_header_with_a_fitting_checksum_is_refused(content, tmp_path, change):
    refused(tmp_path / "n.mnet", resealed(content, CHANGES[change]))


def test_deep_nesting_is_refused(content, tmp_path):
    deep = "x"
    for _ in range(200):
        deep = [deep]
    refused(tmp_path / "n.mnet", resealed(content, lambda h, s: h.update(data={"a": deep})), "nested")
    with pytest.raises(Damaged, match="not JSON"):
        read_json(b"[" * 100_000)


def test_a_stream_that_decompresses_to_more_is_refused():
    bomb = deflate([bytes(1 << 22)])
    with pytest.raises(Damaged, match="size"):
        inflate(bomb, 1000, 1000)
    with pytest.raises(Damaged, match="size"):
        inflate(bomb[:-10], 1 << 22, 1 << 22)
    with pytest.raises(Damaged, match="size"):
        inflate(bomb + b"x", 1 << 22, 1 << 22)


def spots(node, path=()):
    """Paths to every value of a header."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in children:
        yield (*path, key)
        yield from spots(value, (*path, key))


def mutate_header(found, rng):
    paths = [p for p in spots(found) if p[0] not in ("metrics", "versions")]
    path = paths[rng.integers(len(paths))]
    node = found
    for key in path[:-1]:
        node = node[key]
    kind = rng.integers(4)
    if kind == 0:
        del node[path[-1]]
    elif kind == 1 and isinstance(node, list):
        node.insert(path[-1], copy.deepcopy(node[rng.integers(len(node))]))
    else:
        node[path[-1]] = copy.deepcopy(HOSTILE[rng.integers(len(HOSTILE))])


def mutate_streams(streams, rng):
    name = [n for n in streams if streams[n]][rng.integers(len([n for n in streams if streams[n]]))]
    octets = bytearray(streams[name])
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(len(octets)))
        kind = rng.integers(3)
        if kind == 0:
            octets[place] ^= 1 << rng.integers(8)
        elif kind == 1:
            del octets[place : place + int(rng.integers(1, 9))]
        else:
            octets[place:place] = rng.bytes(int(rng.integers(1, 9)))
        octets = octets or bytearray(b"\0")
    streams[name] = bytes(octets)


def mutate_file(content, rng):
    octets = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(len(octets)))
        octets[place] ^= 1 << rng.integers(8)
    kind = rng.integers(3)
    return bytes(octets[: rng.integers(len(octets))] if kind == 0 else octets)


def fuzz(path, content, cases, seed):
    """Refusals and acceptances of mutations whose checksum fits; every other mutation has to be refused."""
    rng = np.random.default_rng(seed)
    outcome = {"refused": 0, "loaded": 0}
    for _ in range(cases):
        changed = mutate_file(content, rng)
        if changed != content:
            refused(path, changed)

        def change(found, streams):
            if rng.integers(3):
                mutate_header(found, rng)
            else:
                mutate_streams(streams, rng)

        try:
            changed = resealed(content, change)
        except (TypeError, ValueError):
            continue  # no JSON, or a number that JSON lacks
        started = time.perf_counter()
        try:
            model = load(path, changed)
        except UserError:
            outcome["refused"] += 1
        else:
            outcome["loaded"] += 1
            assert sum(p.numel() for p in model.parameters()) < 256 * len(changed)
        assert time.perf_counter() - started < 60
    return outcome


def test_a_dozen_mutations_end_in_an_error_or_a_network(content, tmp_path):
    assert sum(fuzz(tmp_path / "n.mnet", content, 12, seed=0).values()) >= 10


@pytest.mark.slow
def test_ten_thousand_mutations_end_in_an_error_or_a_network(content, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = fuzz(tmp_path / "n.mnet", content, 5000, seed=1)  # twice: plain and entropy-coded; two files a case
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)
    assert grown < 512 * 2**20
    assert outcome["refused"] > 2000
    assert outcome["loaded"] > 100  # a changed weight with a fitting checksum is another network


def test_scoring_and_running_what_was_loaded_needs_no_gradient(content, tmp_path):
    loaded = load(tmp_path / "n.mnet", content)
    assert not loaded.training
    with torch.inference_mode():
        assert loaded(torch.zeros(1, 3, 16, 16)).shape == (1, 3)


def test_sizes_add_up_to_the_file(content):
    found = sizes(content)
    assert list(found) == ["container", *STREAMS]
    assert sum(found.values()) == len(content)
    assert found["sha256"] == DIGEST_BYTES


def test_cursor_gives_a_stream_in_order_and_to_its_end():
    cursor = Cursor("codes", b"abcde")
    assert [cursor.take(size) for size in (2, 0, 3)] == [b"ab", b"", b"cde"]
    cursor.close()


def test_cursor_that_is_asked_for_more_stays_where_it_is():
    cursor = Cursor("codes", b"abc")
    with pytest.raises(Damaged, match="stream codes ends too early"):
        cursor.take(4)
    assert cursor.take(3) == b"abc"


def test_cursor_that_is_closed_early_says_what_is_left():
    cursor = Cursor("codes", b"abc")
    cursor.take(1)
    with pytest.raises(Damaged, match="stream codes is 2 bytes too long"):
        cursor.close()


BAD_JSON = {
    "no object": (b"[1]", "header: no format_version"),
    "no version": (b"{}", "header: no format_version"),
    "version 0": (b'{"format_version": 0}', "header: no format_version"),
    "true": (b'{"format_version": true}', "header: no format_version"),
    "newer": (b'{"format_version": 9}', "format 9 is newer than this program's 1"),
    "not a number": (b'{"format_version": 1, "a": NaN}', "header: not JSON .*NaN is not a number"),
    "cut off": (b'{"format_version"', "header: not JSON"),
    "not text": (b"\xff\xfe\xfd", "header: not JSON"),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_json_that_no_writer_makes_is_refused(case):
    text, message = BAD_JSON[case]
    with pytest.raises(Damaged, match=message):
        read_json(text)


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([], id="nothing"),
        pytest.param([b""], id="an empty part"),
        pytest.param([b"a" * 20_000, b"", b"\0\1" * 10_000], id="parts with tables of their own"),
    ],
)
def test_deflated_parts_come_back_as_one(parts):
    whole = b"".join(parts)
    assert inflate(deflate(parts), len(whole), len(whole)) == whole
