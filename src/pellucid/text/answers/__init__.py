"""How models write tool calls and reasoning into their answers: one file for each family of chat templates."""
