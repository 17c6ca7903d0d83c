"""The command line: Hydra's door, sweeps, and where config options are found."""
