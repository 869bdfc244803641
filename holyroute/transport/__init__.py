"""How an attempt reaches the wire."""
