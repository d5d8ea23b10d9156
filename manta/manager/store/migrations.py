"""The schema of the embedded store, as the versions that led to it."""

from __future__ import annotations

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        *(
            f"CREATE TABLE {table} (key TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID"
            for table in ("clusters", "nodes", "users", "keys", "tokens", "swarms")
        ),
        """CREATE TABLE events (
            swarm_id TEXT NOT NULL, number INTEGER NOT NULL, body BLOB NOT NULL,
            PRIMARY KEY (swarm_id, number))""",
        """CREATE TABLE log_lines (
            position INTEGER PRIMARY KEY, swarm_id TEXT NOT NULL, node_id TEXT NOT NULL,
            number INTEGER NOT NULL, body BLOB NOT NULL,
            UNIQUE (swarm_id, node_id, number))""",
        "CREATE INDEX log_lines_by_swarm ON log_lines (swarm_id, position)",
        """CREATE TABLE blob_references (
            digest TEXT NOT NULL, swarm_id TEXT NOT NULL,
            PRIMARY KEY (digest, swarm_id)) WITHOUT ROWID""",
        "CREATE INDEX blob_references_by_swarm ON blob_references (swarm_id)",
        "CREATE TABLE removed_swarms (swarm_id TEXT PRIMARY KEY) WITHOUT ROWID",
    ),
    tuple(
        f"CREATE TABLE {table} (key TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID"
        for table in ("grants", "roles")
    ),
    (
        "CREATE TABLE modules (key TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID",
        # Registered modules need blobs as well.
        "ALTER TABLE blob_references RENAME COLUMN swarm_id TO holder",
    ),
    (
        "ALTER TABLE events ADD COLUMN checksum BLOB",
        """CREATE TABLE event_ends (
            swarm_id TEXT PRIMARY KEY, number INTEGER NOT NULL, checksum BLOB NOT NULL
            ) WITHOUT ROWID""",
        """CREATE TABLE snapshots (
            swarm_id TEXT PRIMARY KEY, number INTEGER NOT NULL, body BLOB NOT NULL,
            checksum BLOB NOT NULL)""",
        """CREATE TABLE snapshot_pages (
            swarm_id TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL,
            checksum BLOB NOT NULL, PRIMARY KEY (swarm_id, name))""",
    ),
    (
        "CREATE TABLE quotas (key TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID",
        """CREATE TABLE skipped_lines (
            swarm_id TEXT NOT NULL, node_id TEXT NOT NULL, number INTEGER NOT NULL,
            PRIMARY KEY (swarm_id, node_id)) WITHOUT ROWID""",
        """CREATE TABLE extents (
            swarm_id TEXT PRIMARY KEY, event_bytes INTEGER NOT NULL, lines INTEGER NOT NULL,
            line_bytes INTEGER NOT NULL) WITHOUT ROWID""",
        """INSERT INTO extents SELECT swarm_id, SUM(event_bytes), SUM(lines), SUM(line_bytes) FROM (
            SELECT swarm_id, LENGTH(body) AS event_bytes, 0 AS lines, 0 AS line_bytes FROM events
            UNION ALL SELECT swarm_id, 0, 1, LENGTH(body) FROM log_lines
            ) WHERE swarm_id NOT IN (SELECT swarm_id FROM removed_swarms) GROUP BY swarm_id""",
    ),
    (  # Who may have a blob is found by the clusters of the swarms that need it.
        "ALTER TABLE blob_references ADD COLUMN scope TEXT NOT NULL DEFAULT ''",
        """UPDATE blob_references SET scope = COALESCE((
            SELECT json_extract(record, '$.info.cluster_id') FROM swarms
            WHERE key = holder AND json_valid(record)), '')""",
        "CREATE INDEX blob_references_by_scope ON blob_references (digest, scope)",
    ),
    ("CREATE TABLE removals (key TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID",),
)
"""The statements that lead from each version of the schema to the next. Never edit one."""
