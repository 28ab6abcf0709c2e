"""Bring a model onto this machine: the catalog, the cache, and the places that models come from."""
