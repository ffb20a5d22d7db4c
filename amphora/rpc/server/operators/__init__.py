"""What operators can ask a worker."""
