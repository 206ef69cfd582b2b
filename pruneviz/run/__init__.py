"""Runs: the one loop, its steps, and what it measures on its way."""
