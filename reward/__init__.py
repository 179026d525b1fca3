"""Checklists, checks, judges, verdicts, rewards, advantages, intervals."""
