"""Requests on their way: who drives the engine, what a caller reads, threads and event loops."""
