"""How much of the manager users and swarms may take."""
