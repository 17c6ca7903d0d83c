"""Charges and the headings they are summed under."""

from micronet_cli.scoring import charges
from micronet_cli.scoring.charges import MULTIPLY, Charge


def headings():
    return [value for name, value in vars(charges).items() if name.isupper()]


def test_headings_differ_so_that_no_two_are_summed_as_one():
    assert len(headings()) == 11
    assert len(set(headings())) == 11


def test_charge_costs_nothing_but_what_it_names():
    charge = Charge("stem", MULTIPLY, multiplications=8, math_ops=2)
    assert (charge.storage_bits, charge.multiplications, charge.additions, charge.math_ops) == (0, 8, 0, 2)
    assert charge.bits == ""
