"""Conversations kept as tokens: turns, branches, answers taken apart, files."""
