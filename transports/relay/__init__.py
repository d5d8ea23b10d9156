"""Streams between two processes that cannot connect to each other, through a third."""
