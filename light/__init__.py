"""What code that runs on nodes imports."""
