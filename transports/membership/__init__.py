"""Who is in a mesh, and who is not any more, as pure machines: SWIM with Lifeguard."""
