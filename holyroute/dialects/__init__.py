"""How providers want a chat completion asked: paths, headers, bodies."""
