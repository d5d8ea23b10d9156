"""Reduces ranges of large values, as tasks reduce small ones: to the same bits."""
