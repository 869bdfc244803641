"""Guards of a target: pure cores with `now` passed in, thin thread shells."""
