-- Which file beside the database says of the mailbox's messages what its rows say (see snapshot.rs); 0: none does. Every change of a row forgets it.
ALTER TABLE mailboxes ADD COLUMN snapshot INTEGER NOT NULL DEFAULT 0;
