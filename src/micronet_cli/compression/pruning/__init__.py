"""Pruning: masks that shrink along a schedule, and channels that are taken out."""
