"""A generation held in the hand: steps, branches, what it has put out, how it is kept in a file."""
