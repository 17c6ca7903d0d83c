"""The one observation of a network: what it executes, and what can be read from that."""
