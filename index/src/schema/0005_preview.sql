-- Apart from `rendered`, which lists and searches read without it.
CREATE TABLE previews (
    id      INTEGER PRIMARY KEY,
    preview TEXT    NOT NULL,
    sum     INTEGER NOT NULL                          -- of preview, plus id
) STRICT;
CREATE TRIGGER preview_goes AFTER DELETE ON messages BEGIN
    DELETE FROM previews WHERE id = OLD.id;
END;
