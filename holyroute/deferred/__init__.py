"""Calls that wait: the retry queue, and the rules by which it is replayed."""
