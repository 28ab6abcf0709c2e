"""Where drafts come from, and how many of them are worth a pass."""
