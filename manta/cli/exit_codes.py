"""The exit codes of `manta`: of errors, and of how a swarm ended."""

from __future__ import annotations

import click

from manta.console.exit_codes import Exit


class LocalError(click.ClickException):
    """Something is wrong on this machine: a file, a folder, a process."""

    exit_code = Exit.LOCAL


def unwritable(path: object, error: OSError) -> LocalError:
    """Returns the error that a file or folder can't be written."""
    return LocalError(
        f"{path} can't be written ({error.strerror or error}): make room there, or name another "
        "place."
    )


def of_error(error: BaseException) -> Exit:
    """Returns the exit code of an error."""
    from manta.apis import errors
    from manta.transports.errors import KeyFileError

    table: list[tuple[type[BaseException], Exit]] = [
        (errors.InvalidSwarm, Exit.INVALID_SWARM),
        (errors.Unplaceable, Exit.UNPLACEABLE),
        (errors.NotFound, Exit.NOT_FOUND),
        (errors.Ambiguous, Exit.NOT_FOUND),
        (errors.NotAuthenticated, Exit.DENIED),
        (errors.Forbidden, Exit.DENIED),
        (errors.Denied, Exit.DENIED),
        (errors.WaitTimeout, Exit.TIMEOUT),
        (errors.ConnectionFailed, Exit.UNREACHABLE),
        (errors.RequestRefused, Exit.REFUSED),
        (errors.ProfileError, Exit.LOCAL),
        (errors.DatasetMissing, Exit.LOCAL),
        (errors.ClusterDied, Exit.LOCAL),
        (errors.SwarmFailed, Exit.SWARM_FAILED),
        (errors.MissingPackage, Exit.LOCAL),
        (KeyFileError, Exit.LOCAL),
    ]
    return next((code for kind, code in table if isinstance(error, kind)), Exit.INTERNAL)


def of_status(status: str) -> Exit:
    """Returns the exit code of a swarm's final state."""
    return {"FAILED": Exit.SWARM_FAILED, "STOPPED": Exit.SWARM_STOPPED}.get(status, Exit.OK)
