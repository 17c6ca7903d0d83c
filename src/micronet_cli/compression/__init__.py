"""Compression that lives in the model: masks, fake-quantisers, and the compressors that attach them."""
