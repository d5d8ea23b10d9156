"""A way back into a manager whose password is lost, for who owns its folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence

import msgspec

from manta.manager.audit import record_here
from manta.manager.auth.passwords import hash_password
from manta.manager.errors import RecoveryError
from manta.manager.gateway.registrar import ENDED
from manta.manager.home import Home
from manta.manager.store.interface import Delete, Put, Store, Write
from manta.manager.store.records import ADMIN_ROLE, KeyKind, KeyRecord, TokenRecord, UserRecord
from manta.manager.store.sqlite import SqliteStore
from manta.protocol.tokens import USER_AUDIENCE


def reset_password(home: Home, email: str | None, password: str) -> str:
    """Gives a user a password; None: the only administrator. Returns the e-mail address.

    All sessions of the user end. Raises RecoveryError, StoreError.
    """
    if not home.database.exists():
        raise RecoveryError(f"There is no manager's database in {home.path}: give its --home.")
    try:
        lock = os.open(home.lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RecoveryError(
            f"{home.lock} cannot be opened: {error.strerror}; be the user who owns the folder."
        ) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecoveryError(
                f"A manager runs in {home.path}: stop it (manta manager stop), reset the password, "
                "and start it again."
            ) from None
        had_log = home.database_log.exists()
        store = SqliteStore(home.database)
        try:
            user = _find(store.all(UserRecord), email)
            changed = msgspec.structs.replace(user, password=hash_password(password))
            store.commit([Put(changed), *_ends(store, user)])
        finally:
            store.close()
            if had_log:  # it is folded in now: the next start must not miss it
                home.manager_file.unlink(missing_ok=True)
        record_here(home, "reset-password", email=user.email)
    finally:
        os.close(lock)
    return user.email


def _ends(store: Store, user: UserRecord) -> Iterator[Write]:
    """Ends the user's keys and tokens."""
    for key in store.all(KeyRecord):
        if key.kind == KeyKind.USER and key.subject == user.id:
            yield Delete(KeyRecord, key.key)
    for token in store.all(TokenRecord):
        if token.audience == USER_AUDIENCE and token.subject == user.id:
            yield Put(msgspec.structs.replace(token, revoked=ENDED))


def _find(users: Sequence[UserRecord], email: str | None) -> UserRecord:
    if not users:
        raise RecoveryError(
            "The manager here has no user yet, because it never started: start it (manta manager "
            "start), which creates the first."
        )
    wanted = email.strip().lower() if email is not None else None
    found = [
        user
        for user in users
        if (user.role == ADMIN_ROLE if wanted is None else user.email == wanted)
    ]
    if len(found) == 1:
        return found[0]
    there = ", ".join(sorted(user.email for user in (found or users))) or "none"
    if found:
        raise RecoveryError(f"There are several administrators: name one with --email ({there}).")
    who = "administrator" if wanted is None else f"user {wanted!r}"
    raise RecoveryError(f"There is no {who} here; there are: {there}.")
