-- Versions 1 to 3 had no checksums: indexes of these versions are rebuilt.
--
-- Every row has its CRC-32 (see checksum.rs), so that damage is noticed when the row is read; the counts in `mailboxes` tell when rows are missing.
-- A message's row id is mailbox << 32 | uid: one b-tree, clustered by mailbox and UID, without a second index.
CREATE TABLE mailboxes (
    id             INTEGER PRIMARY KEY AUTOINCREMENT, -- never given twice: rows of a deleted mailbox can't be taken for another's
    folder         TEXT    NOT NULL UNIQUE,           -- below the Maildir, '' is the inbox
    special_use    TEXT,
    adopted_below  INTEGER NOT NULL,                  -- messages with UIDs below are named in the list that came from an earlier server; 0: there is none
    place_sum      INTEGER NOT NULL,                  -- of the columns so far
    uid_validity   INTEGER NOT NULL,
    uid_next       INTEGER NOT NULL,
    highest_modseq INTEGER NOT NULL,
    expunged_floor INTEGER NOT NULL,                  -- expunges up to this MODSEQ are forgotten
    first_recent   INTEGER NOT NULL,
    uid_ceiling    INTEGER NOT NULL,                  -- as last seen in the name of the folder's state file, which is the truth
    modseq_ceiling INTEGER NOT NULL,
    cur_seen       INTEGER NOT NULL,                  -- change time of cur/ and new/ (nanoseconds) at the last scan, 0: look again
    new_seen       INTEGER NOT NULL,
    scan_due       INTEGER NOT NULL,                  -- see ScanDue
    numbers_sum    INTEGER NOT NULL,                  -- of id and the columns since place_sum, plus each of the counts below
    messages       INTEGER NOT NULL DEFAULT 0,        -- rows of the mailbox in messages, and their size: kept by the commit that changes them,
    bytes          INTEGER NOT NULL DEFAULT 0,        --   so that quotas are known without a look at every message
    expunged_rows  INTEGER NOT NULL DEFAULT 0,        -- rows in expunged
    uidl_rows      INTEGER NOT NULL DEFAULT 0,        -- rows in uidls
    other_rows     INTEGER NOT NULL DEFAULT 0         -- rows in write_backs, removals and keywords
) STRICT;

-- One row: how many mailboxes there are.
CREATE TABLE totals (mailboxes INTEGER NOT NULL) STRICT;
INSERT INTO totals VALUES (0);

CREATE TABLE messages (
    id            INTEGER PRIMARY KEY,
    flags         INTEGER NOT NULL,
    modseq        INTEGER NOT NULL,
    flags_sum     INTEGER NOT NULL,                   -- of id, flags, modseq
    size          INTEGER NOT NULL,
    disk_size     INTEGER NOT NULL,
    internal_date INTEGER NOT NULL,
    save_date     INTEGER NOT NULL,
    facts_sum     INTEGER NOT NULL,                   -- of id, size … save_date
    file          TEXT    NOT NULL,                   -- with its folder: cur/… or new/…
    file_sum      INTEGER NOT NULL                    -- of id, file
) STRICT;

CREATE TRIGGER message_comes AFTER INSERT ON messages BEGIN
    UPDATE mailboxes SET messages = messages + 1, bytes = bytes + NEW.size, numbers_sum = numbers_sum + 1 + NEW.size WHERE id = NEW.id >> 32;
END;
CREATE TRIGGER message_goes AFTER DELETE ON messages BEGIN
    UPDATE mailboxes SET messages = messages - 1, bytes = bytes - OLD.size, numbers_sum = numbers_sum - 1 - OLD.size WHERE id = OLD.id >> 32;
END;
CREATE TRIGGER message_grows AFTER UPDATE OF size ON messages BEGIN
    UPDATE mailboxes SET bytes = bytes - OLD.size + NEW.size, numbers_sum = numbers_sum - OLD.size + NEW.size WHERE id = NEW.id >> 32;
END;

-- Apart from `messages`, so that loading a mailbox does not read it.
CREATE TABLE rendered (
    id             INTEGER PRIMARY KEY,
    headers        BLOB    NOT NULL,
    headers_sum    INTEGER NOT NULL,                  -- of headers, plus id
    envelope       BLOB    NOT NULL,
    body_structure BLOB    NOT NULL,
    shape_sum      INTEGER NOT NULL                   -- of envelope and body_structure, plus id
) STRICT;

-- Messages whose file name does not have their flags or UID yet.
CREATE TABLE write_backs (id INTEGER PRIMARY KEY, sum INTEGER NOT NULL) STRICT;

CREATE TABLE expunged (
    mailbox INTEGER NOT NULL,
    modseq  INTEGER NOT NULL,
    uid     INTEGER NOT NULL,
    sum     INTEGER NOT NULL,
    PRIMARY KEY (mailbox, modseq, uid)
) STRICT, WITHOUT ROWID;

-- Files of expunged messages that are still there.
CREATE TABLE removals (
    mailbox INTEGER NOT NULL,
    file    TEXT    NOT NULL,
    sum     INTEGER NOT NULL,
    PRIMARY KEY (mailbox, file)
) STRICT, WITHOUT ROWID;

CREATE TABLE keywords (
    mailbox  INTEGER NOT NULL,
    position INTEGER NOT NULL,
    name     TEXT    NOT NULL,
    sum      INTEGER NOT NULL,
    PRIMARY KEY (mailbox, position)
) STRICT, WITHOUT ROWID;

-- POP3 UIDLs that an earlier server gave.
CREATE TABLE uidls (id INTEGER PRIMARY KEY, uidl TEXT NOT NULL, sum INTEGER NOT NULL) STRICT;
