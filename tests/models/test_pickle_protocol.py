"""Guards pickles in the operations of protocol 2: the same objects, nothing unpickled on the way."""

import argparse
import io
import os
import pickle
import pickletools
from collections import OrderedDict

import pytest
import torch

from micronet_cli.models.pickle_protocol import as_protocol_2, in_protocol_2

SHARED = ["shared"]
OBJECTS = {
    "texts": {"a": "a", "collections": ["collections", "OrderedDict", "ä" * 300]},
    "bytes": [b"", b"\x00\xff", b"x" * 300],
    "numbers": [0, 255, 65536, 1 << 80, -1, 1.5, True, None],
    "shared": [SHARED, SHARED, (SHARED, ()), {}],
    "an ordered dictionary": OrderedDict(a=1, collections=OrderedDict(b=2)),
    "a namespace": argparse.Namespace(lr=0.1, name="argparse", again="Namespace"),
    "many": [[number] for number in range(300)],
}


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("thing", OBJECTS.values(), ids=OBJECTS.keys())
def test_the_same_object_comes_back_from_operations_of_protocol_2(thing, protocol):
    rewritten = as_protocol_2(pickle.dumps(thing, protocol=protocol))
    assert pickle.loads(rewritten) == thing
    assert max(code.proto for code, _, _ in pickletools.genops(rewritten)) <= 2


def test_objects_that_are_one_stay_one():
    first, second = pickle.loads(as_protocol_2(pickle.dumps([SHARED, SHARED], protocol=4)))
    assert first is second


def test_a_function_stays_the_one_that_is_named():
    rewritten = as_protocol_2(pickle.dumps({"a": os.system}, protocol=4))
    assert b"posix\nsystem\n" in rewritten


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"\x80\x04\x93.", b"\x80\x04K\x01K\x02\x93."])
def test_what_is_broken_is_an_error(content):
    with pytest.raises(ValueError, match=r"."):
        as_protocol_2(content)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_file_of_torch_keeps_its_tensors(protocol):
    file = io.BytesIO()
    torch.save({"a.weight": torch.eye(3), "b": torch.eye(2).half()}, file, pickle_protocol=protocol)
    file.seek(0)
    readable = in_protocol_2(file)
    assert (readable is file) == (protocol == 2)
    found = torch.load(readable, weights_only=True)
    assert found["a.weight"].equal(torch.eye(3))
    assert found["b"].equal(torch.eye(2).half())


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04broken"])
def test_what_is_no_zip_stays_as_it_is(content):
    file = io.BytesIO(content)
    assert in_protocol_2(file).read() == content
