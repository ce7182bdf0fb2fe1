"""The subcommands of ``ahba``; each only turns words into calls and results into text."""
