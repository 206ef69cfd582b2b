"""Derivatives of the loss and of the layers: pure functions that know nothing of pruning."""
