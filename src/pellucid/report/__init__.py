"""A page of HTML that shows a generation: what was probable at each token, what was chosen, and why."""
