"""What ties the actors of a node together: where they live, what they share, what they say."""
