"""Who may do what: passwords, tokens, principals."""
