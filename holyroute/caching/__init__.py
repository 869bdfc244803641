"""Answers that are kept, and questions that are asked once though many threads have them."""
