"""What to run, as plain validated data. No torch."""
