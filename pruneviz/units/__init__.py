"""What leaves: weights, filters, directions; which of them; and what the network is then."""
