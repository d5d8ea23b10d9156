"""Does nothing. No installed package has this name."""


def main() -> None:
    """As tasks have one."""
