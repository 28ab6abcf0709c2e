"""Benchmarks of models: the adapter to EleutherAI's lm-evaluation-harness. Nothing here is imported without it."""
