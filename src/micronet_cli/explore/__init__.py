"""What many runs or a network's layers tell together."""
