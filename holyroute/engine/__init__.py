"""The engine: whom to ask, in which order, and what to make of the answers."""
