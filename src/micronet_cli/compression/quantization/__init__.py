"""Quantisation: schemes for weights and activations, in training and after it."""
