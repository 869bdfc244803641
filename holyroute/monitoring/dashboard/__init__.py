"""One page that shows a `Health`: template, style and script, and who hands them out."""
