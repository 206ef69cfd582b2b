"""What everything stands on: errors, citations, registries, events, seeds. No torch."""
