"""Distributed and federated algorithms on machines that people own."""
