"""Training runs: starting, resuming and stopping them."""
