"""The door of the manager: who is who, who may do what, and who answers."""
