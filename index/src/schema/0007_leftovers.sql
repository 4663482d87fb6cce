-- Runs of messages that are gone, of which something that was made is still here: swept later, many rows at once, when nobody waits.
CREATE TABLE leftovers (
    first INTEGER PRIMARY KEY,                        -- row ids in messages, which has none of them any more
    last  INTEGER NOT NULL,
    sum   INTEGER NOT NULL                            -- of first and last
) STRICT;
-- A change counts the messages that it adds and removes by itself, and writes the sum: triggers wrote it for every row.
DROP TRIGGER IF EXISTS message_comes;
DROP TRIGGER IF EXISTS message_goes;
DROP TRIGGER IF EXISTS message_grows;
