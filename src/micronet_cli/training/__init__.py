"""Training and evaluation: the only loop, and what plugs into it."""
