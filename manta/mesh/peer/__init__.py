"""A peer's process: the plane, and the control that takes the manager's place."""
