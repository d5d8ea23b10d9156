"""The source of a function or class, with what it uses: a module of its own."""
