"""What outlives a call: each store speaks its own language behind a small protocol."""
