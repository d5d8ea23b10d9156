"""What the actors of a node share: where they live, their context, and what they say."""
