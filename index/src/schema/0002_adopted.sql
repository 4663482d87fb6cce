-- Messages with UIDs below are named in the list that came from an earlier server, and keep their file names; 0: there is no such list.
ALTER TABLE mailboxes ADD COLUMN adopted_below INTEGER NOT NULL DEFAULT 0;
