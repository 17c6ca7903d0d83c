"""How fast a network is on the engines that are installed, beside the dense network that it was made of."""
