"""What a run holds is counted, goes to disk and comes back bit by bit; what modules hold stays."""

import torch
from torch import nn

from micronet_cli.trace.held_memory import HeldMemory


def test_what_is_alive_is_counted_once():
    with HeldMemory(nn.Identity()) as held:
        kept = torch.ones(100) * 2
        view = kept[::2]
        torch.ones(1000).sum()
    assert held.in_use == 400
    del kept
    assert held.in_use == 400
    del view
    assert held.in_use == 0


def test_what_is_spilled_takes_no_memory_and_comes_back(tmp_path):
    with HeldMemory(nn.Identity()) as held:
        kept = torch.randn(50) * 2
        view = kept[10:20]
    before, before_of_view = kept.clone(), view.clone()
    held.spill(tmp_path)
    assert held.in_use == 0
    assert kept.untyped_storage().nbytes() == 0
    assert list(tmp_path.iterdir()) == []  # a killed run leaves nothing behind
    held.restore()
    assert torch.equal(kept, before)
    assert torch.equal(view, before_of_view)
    view.zero_()
    assert torch.equal(kept[10:20], torch.zeros(10))
    held.restore()
    assert torch.equal(kept[:10], before[:10])


def test_what_a_module_keeps_is_not_moved():
    model = nn.Identity()
    with HeldMemory(model) as held:
        model.table = torch.ones(3) + 1
    held.spill()
    assert model.table.tolist() == [2, 2, 2]
