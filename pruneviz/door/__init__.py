"""What comes in: a network, samples and targets, seen whole before any work."""
