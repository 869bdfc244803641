"""Values without I/O: what a call, a target, an attempt and its outcome are."""
