"""A run's directory, what becomes of many runs, and where their numbers go."""
