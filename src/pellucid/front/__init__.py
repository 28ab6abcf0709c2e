"""What `LLM` is made of: opening a model, and a part for each kind of thing that it is asked."""
