-- What searches, sorts and threads look at. Apart from `rendered`, whose rows are long: a search would read six times as many pages.
CREATE TABLE summaries (
    id      INTEGER PRIMARY KEY,
    summary BLOB    NOT NULL,
    sum     INTEGER NOT NULL                          -- of summary, plus id
) STRICT;
-- Header fields that clients asked for of many messages: sets of names, and what each message has of them.
CREATE TABLE asked (
    kind  INTEGER PRIMARY KEY AUTOINCREMENT,          -- never given twice: whoever reads meanwhile finds nothing rather than other fields
    names TEXT    NOT NULL UNIQUE,
    sum   INTEGER NOT NULL                            -- of kind and names
) STRICT;
CREATE TABLE answers (
    kind   INTEGER NOT NULL,
    id     INTEGER NOT NULL,
    fields BLOB    NOT NULL,
    sum    INTEGER NOT NULL,                          -- of kind and fields, plus id
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
-- Previews go with their message as the other rows do, many by one statement.
DROP TRIGGER preview_goes;
