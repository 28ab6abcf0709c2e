"""What a generation shows of itself: the mechanism told, and what it was made of."""
