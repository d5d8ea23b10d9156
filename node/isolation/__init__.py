"""What the kernel enforces for a task without a container engine: system calls, files, limits.

Nothing here needs a privilege or a library. What a task's process does to itself before it becomes
the runtime (`enter`, `landlock`, `privileges`, `seccomp`) can't be undone by it or by what it
starts; what its node does to it from outside is in `cgroups`, `holding` and `watchdog`.
"""
