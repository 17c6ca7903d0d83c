"""The doors to the engines that run a network on a CPU; each opens a network or a file and answers images."""
