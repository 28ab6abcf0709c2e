"""Scores of given texts: continuations in a token trie, perplexity in windows, probabilities of strings."""
