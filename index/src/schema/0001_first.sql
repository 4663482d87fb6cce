-- A message's row id is mailbox << 32 | uid: one b-tree, clustered by mailbox and UID, without a second index.
CREATE TABLE mailboxes (
    id             INTEGER PRIMARY KEY AUTOINCREMENT, -- never given twice: rows of a deleted mailbox can't be taken for another's
    folder         TEXT    NOT NULL UNIQUE,           -- Maildir++ folder, '' is the inbox
    uid_validity   INTEGER NOT NULL,
    uid_next       INTEGER NOT NULL,
    highest_modseq INTEGER NOT NULL,
    expunged_floor INTEGER NOT NULL,                  -- expunges up to this MODSEQ are forgotten
    first_recent   INTEGER NOT NULL,
    special_use    TEXT,
    uid_ceiling    INTEGER NOT NULL,                  -- as last seen in the name of the folder's state file, which is the truth
    modseq_ceiling INTEGER NOT NULL,
    cur_seen       INTEGER NOT NULL,                  -- change time of cur/ and new/ (nanoseconds) at the last scan, 0: look again
    new_seen       INTEGER NOT NULL,
    scan_due       INTEGER NOT NULL                   -- see ScanDue
) STRICT;

CREATE TABLE messages (
    id            INTEGER PRIMARY KEY,
    flags         INTEGER NOT NULL,
    modseq        INTEGER NOT NULL,
    size          INTEGER NOT NULL,
    disk_size     INTEGER NOT NULL,
    internal_date INTEGER NOT NULL,
    save_date     INTEGER NOT NULL,
    file          TEXT    NOT NULL                    -- with its folder: cur/… or new/…
) STRICT;

-- Apart from `messages`, so that loading a mailbox does not read it.
CREATE TABLE rendered (
    id             INTEGER PRIMARY KEY,
    envelope       BLOB NOT NULL,
    body_structure BLOB NOT NULL,
    headers        BLOB NOT NULL
) STRICT;

-- Messages whose file name does not have their flags or UID yet.
CREATE TABLE write_backs (id INTEGER PRIMARY KEY) STRICT;

CREATE TABLE expunged (
    mailbox INTEGER NOT NULL,
    modseq  INTEGER NOT NULL,
    uid     INTEGER NOT NULL,
    PRIMARY KEY (mailbox, modseq, uid)
) STRICT, WITHOUT ROWID;

-- Files of expunged messages that are still there.
CREATE TABLE removals (
    mailbox INTEGER NOT NULL,
    file    TEXT    NOT NULL,
    PRIMARY KEY (mailbox, file)
) STRICT, WITHOUT ROWID;

CREATE TABLE keywords (
    mailbox  INTEGER NOT NULL,
    position INTEGER NOT NULL,
    name     TEXT    NOT NULL,
    PRIMARY KEY (mailbox, position)
) STRICT, WITHOUT ROWID;

-- POP3 UIDLs that an earlier server gave.
CREATE TABLE uidls (id INTEGER PRIMARY KEY, uidl TEXT NOT NULL) STRICT;
