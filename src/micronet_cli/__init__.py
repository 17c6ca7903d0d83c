"""micronet: compress image classifiers and prove what it claims."""
