"""Constraints on the output: a JSON Schema, a regular expression, a grammar, or a list of choices."""
