"""What hangs on a module: effective weights, fake quantisers, integers; and the rules that choose layers."""
