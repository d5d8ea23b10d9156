"""What peers say to each other in letters and broadcasts, with no server between them."""
