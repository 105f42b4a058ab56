"""Shared by several tests: clocks, targets, real servers, real processes."""
