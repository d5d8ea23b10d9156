"""What a template runs before it forks its first attempt (`template.py`): a task that does nothing.

It has a folder of its own, as any task has: what lies beside it would be found by its imports.
"""
