"""What a run records, said once: stages, metric names, arrays. No torch."""
