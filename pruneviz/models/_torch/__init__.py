"""What networks are made of, once torch is loaded."""
