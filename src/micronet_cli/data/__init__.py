"""Doors to data sets: named splits, decoding, augmentation, batches."""
