"""Which tensors are worked on block by block, and that blocks are the tensor's own memory."""

import pytest
import torch

from micronet_cli.functional.cache_blocks import BLOCK, blocks, blocks_pay, dense, flat, is_dense


def large():
    return torch.zeros(BLOCK + 1)


class Labelled(torch.Tensor):
    """A tensor that is not a plain one."""


def test_blocks_pay_above_one_block_only():
    assert blocks_pay(large())
    assert blocks_pay(torch.nn.Parameter(large()))
    assert not blocks_pay(large()[:BLOCK])


NOT_PLAIN = {
    "float64": lambda: large().double(),
    "bfloat16": lambda: large().bfloat16(),
    "subclass": lambda: large().as_subclass(Labelled),
    "meta": lambda: torch.empty(BLOCK + 1, device="meta"),
}


@pytest.mark.parametrize("make", NOT_PLAIN.values(), ids=NOT_PLAIN.keys())
def test_blocks_do_not_pay_for_anything_but_plain_float32_on_the_cpu(make):
    assert not blocks_pay(make())


def test_blocks_do_not_pay_while_compiling(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not blocks_pay(large())


IMAGE = torch.arange(48.0).view(2, 3, 4, 2)
LAYOUTS = {
    "contiguous": (IMAGE, True),
    "channels last": (IMAGE.to(memory_format=torch.channels_last), True),
    "every other row": (IMAGE[:, :, ::2], False),
    "transposed matrix": (IMAGE.view(6, 8).T, False),
    "one number": (torch.tensor(3.0), True),
    "empty": (torch.zeros(0, 3), True),
}


@pytest.mark.parametrize(("tensor", "expected"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_is_dense_tells_layouts_apart(tensor, expected):
    assert is_dense(tensor) == expected


@pytest.mark.parametrize("tensor", [case[0] for case in LAYOUTS.values()], ids=LAYOUTS.keys())
def test_dense_copies_only_what_has_gaps(tensor):
    found = dense(tensor)
    assert is_dense(found)
    assert torch.equal(found, tensor)
    assert (found is tensor) == is_dense(tensor)


def test_flat_shows_elements_as_they_lie_in_memory():
    image = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 2, 1, 2)
    last = image.to(memory_format=torch.channels_last)
    assert flat(image).tolist() == [1, 2, 3, 4]
    assert flat(last).tolist() == [1, 3, 2, 4]
    flat(image)[0] = 9
    assert image[0, 0, 0, 0] == 9


def test_blocks_cover_every_element_once_and_share_memory():
    source, target = torch.arange(2.0 * BLOCK + 3), torch.zeros(2 * BLOCK + 3)
    sizes = []
    for part, out in blocks(source, target):
        out.copy_(part)
        sizes.append(len(part))
    assert sizes == [BLOCK, BLOCK, 3]
    assert torch.equal(source, target)


def test_blocks_of_tensors_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        list(blocks(torch.zeros(2 * BLOCK), torch.zeros(BLOCK)))
