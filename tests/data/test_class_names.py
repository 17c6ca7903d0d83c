"""Guards the names of outputs: ImageNet's and a file's, mistakes in a file, and which output a class is."""

from typing import NamedTuple

import pytest

from micronet_cli.data.class_names import (
    are_numbers,
    described_unknown,
    numbered,
    outputs_of,
    read_class_names,
    unknown_class,
)
from micronet_cli.errors import UserError


def test_imagenet_is_its_1000_wordnet_ids_in_order():
    names = read_class_names("imagenet")
    assert (len(names), names[0], names[1], names[999]) == (1000, "n01440764", "n01443537", "n15075141")
    assert names == sorted(names)


FILES = {
    "a name a line": b"cat\ndog\n",
    "no newline at the end": b"cat\ndog",
    "Windows": b"\xef\xbb\xbfcat\r\ndog\r\n",
    "spaces around": b" cat\ndog \n",
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES.keys())
def test_a_file_is_a_name_a_line(tmp_path, content):
    (tmp_path / "names.txt").write_bytes(content)
    assert read_class_names(str(tmp_path / "names.txt")) == ["cat", "dog"]


def test_a_path_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "names.txt").write_text("tench, Tinca tinca\nÄsche")
    assert read_class_names("~/names.txt") == ["tench, Tinca tinca", "Äsche"]


class Mistake(NamedTuple):
    content: bytes
    said: str


MISTAKES = {
    "an empty line": Mistake(b"cat\n\ndog\n", "line 2 is empty; every line must be the name of an output"),
    "two newlines at the end": Mistake(b"cat\n\n", "line 2 is empty; every line must be the name of an output"),
    "nothing": Mistake(b"", "line 1 is empty; every line must be the name of an output"),
    "a name twice": Mistake(b"cat\ndog\ncat\n", "'cat' stands in lines 1 and 3; names must differ"),
    "no text": Mistake(b"\xff\xfe\x00", "is no text; it must hold a class name a line"),
}


@pytest.mark.parametrize("case", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_file_that_is_no_list_is_a_mistake(tmp_path, case):
    path = tmp_path / "names.txt"
    path.write_bytes(case.content)
    with pytest.raises(UserError) as caught:
        read_class_names(str(path))
    assert str(caught.value) == f"data.classes={str(path)!r}: {case.said}"


def test_a_file_that_cannot_be_read_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match=r"^data\.classes='imagnet': no such file; did you mean imagenet\?$"):
        read_class_names("imagnet")
    with pytest.raises(UserError, match=r"^data\.classes='.*': cannot be read \(.*directory"):
        read_class_names(str(tmp_path))


def test_numbers_are_no_names():
    assert numbered(3) == ["0", "1", "2"]
    assert are_numbers(["0", "1", "2"])
    assert are_numbers([])
    assert not are_numbers(["1", "0"])


def test_outputs_are_found_by_name():
    assert outputs_of(["dog", "fox", "cat"], ["cat", "dog"]).tolist() == [1, -1, 0]
    assert outputs_of([], ["cat"]).tolist() == []


def test_unknown_classes_are_named_and_the_rest_counted():
    said = described_unknown(["dgo", "x1", "x2", "x3", "x4"], ["cat", "dog"])
    assert said == "5 classes that the network does not know: dgo (did you mean dog?), x1, x2 and 2 more"
    assert unknown_class("1.jpg", "dgo", ["dog"]) == (
        "1.jpg is of the class 'dgo', which the network does not know; did you mean dog?"
    )
