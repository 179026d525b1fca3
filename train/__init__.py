"""Cold start, groups from the log, GRPO, versions, gate, the loop."""
