"""The most probable outputs: exact search and its certificate, beams, samples compared with each other."""
