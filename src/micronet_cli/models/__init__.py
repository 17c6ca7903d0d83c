"""Doors to networks: timm's, the CIFAR ResNets, weights files."""
