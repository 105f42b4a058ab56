"""What several tests use: clocks, targets, real servers, real processes."""
