"""The tables of a queue.

Counters and partial indexes keep the cost of an operation the same at any depth: without them, a put at depth 100,000
costs fifty times as much. The definitions fit into the first page of a file, at fixed places; `repair` relies on that.
"""

from __future__ import annotations

APPLICATION = 0x48525131  # "HRQ1": tells our files from other people's databases
VERSION = 2
PAGE = 4096  # bytes

SCHEMA = f"""
PRAGMA page_size={PAGE};
PRAGMA application_id={APPLICATION};
PRAGMA user_version={VERSION};
BEGIN;
CREATE TABLE item(
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, key TEXT UNIQUE,
  digest TEXT NOT NULL, grp INTEGER NOT NULL,
  state TEXT NOT NULL CHECK(state IN('ready','leased','done','dead')),
  payload BLOB, result BLOB, crc INTEGER NOT NULL, attempts INTEGER NOT NULL, leases INTEGER NOT NULL,
  not_before REAL NOT NULL, expires REAL NOT NULL, created REAL NOT NULL, finished REAL,
  lease_until REAL, token TEXT, error TEXT);
CREATE INDEX item_due ON item(not_before, seq) WHERE state='ready';
CREATE INDEX item_group ON item(grp, not_before, seq) WHERE state='ready';
CREATE INDEX item_expires ON item(expires) WHERE state='ready';
CREATE INDEX item_lease ON item(lease_until) WHERE state='leased';
CREATE INDEX item_done ON item(finished) WHERE state='done';
CREATE INDEX item_dead ON item(finished) WHERE state='dead';
CREATE INDEX item_digest ON item(digest) WHERE state IN('ready','leased');
CREATE TABLE tally(state TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO tally VALUES('ready',0),('leased',0),('done',0),('dead',0);
CREATE TRIGGER item_in AFTER INSERT ON item BEGIN
  UPDATE tally SET n=n+1 WHERE state=NEW.state; END;
CREATE TRIGGER item_out AFTER DELETE ON item BEGIN
  UPDATE tally SET n=n-1 WHERE state=OLD.state; END;
CREATE TRIGGER item_move AFTER UPDATE OF state ON item BEGIN
  UPDATE tally SET n=n-1 WHERE state=OLD.state; UPDATE tally SET n=n+1 WHERE state=NEW.state; END;
COMMIT;
"""

RECORD = (
    *("id", "key", "state", "payload", "result", "attempts", "leases"),
    *("not_before", "expires", "created", "finished", "error"),
)
COLUMNS = ("seq", *RECORD, "digest", "grp", "crc", "lease_until", "token")
