"""What a block reads and gives: in memory or in a file, drawn, mixed, in order."""

import pytest
import torch

from micronet_cli.compression.quantization.block_data import BlockData


def filled(directory, in_memory=1e9):
    data = BlockData(4, in_memory, directory)
    for first in (0, 2):
        in_float = torch.tensor([[1.0, 1.0], [2.0, 2.0]]) + first
        data.add(in_float, -in_float, in_float[:, :1])
    return data


@pytest.mark.parametrize("in_memory", [0, 1e9], ids=["in a file", "in memory"])
def test_it_holds_all_images(tmp_path, in_memory):
    data = filled(tmp_path, in_memory)
    read, target = (torch.cat(parts) for parts in zip(*data.batches(3), strict=True))
    assert read[:, 0].tolist() == [-1, -2, -3, -4]
    assert target.tolist() == [[1], [2], [3], [4]]
    # (1 + 4 + 9 + 16) / 4, and the values' own.
    assert data.size == 7.5
    assert data.root_mean_square == pytest.approx(7.5**0.5)


def test_a_file_and_memory_draw_alike(tmp_path):
    drawn = []
    for in_memory in (0, 1e9):
        generator = torch.Generator().manual_seed(0)
        drawn.append(filled(tmp_path, in_memory).drawn(8, 0.5, generator))
    for one, other in zip(*drawn, strict=True):
        assert torch.equal(one, other)


def test_what_is_drawn_belongs_together_and_is_float_or_quantised(tmp_path):
    generator = torch.Generator().manual_seed(0)
    read, target = filled(tmp_path).drawn(64, 0.5, generator)
    assert torch.equal(read.abs(), target.expand(-1, 2))
    assert set(read.sign().unique().tolist()) == {-1, 1}
    read, target = filled(tmp_path).drawn(64, 0.0, generator)
    assert torch.equal(-read, target.expand(-1, 2))


def test_nothing_is_left_in_the_directory(tmp_path):
    filled(tmp_path, 0)
    assert not list(tmp_path.iterdir())


def test_targets_of_zero_have_size_one():
    data = BlockData(1, 1e9)
    data.add(torch.ones(1, 2), torch.ones(1, 2), torch.zeros(1, 2))
    assert data.size == 1
