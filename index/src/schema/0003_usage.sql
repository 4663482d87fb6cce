-- How much each mailbox holds, kept by the same commit that changes it: quotas are known without a look at every message.
ALTER TABLE mailboxes ADD COLUMN messages INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mailboxes ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
UPDATE mailboxes SET
    messages = (SELECT count(*) FROM messages WHERE messages.id BETWEEN mailboxes.id << 32 AND (mailboxes.id << 32) | 0xffffffff),
    bytes = (SELECT coalesce(sum(size), 0) FROM messages WHERE messages.id BETWEEN mailboxes.id << 32 AND (mailboxes.id << 32) | 0xffffffff);
CREATE TRIGGER message_comes AFTER INSERT ON messages BEGIN
    UPDATE mailboxes SET messages = messages + 1, bytes = bytes + NEW.size WHERE id = NEW.id >> 32;
END;
CREATE TRIGGER message_goes AFTER DELETE ON messages BEGIN
    UPDATE mailboxes SET messages = messages - 1, bytes = bytes - OLD.size WHERE id = OLD.id >> 32;
END;
CREATE TRIGGER message_grows AFTER UPDATE OF size ON messages BEGIN
    UPDATE mailboxes SET bytes = bytes - OLD.size + NEW.size WHERE id = NEW.id >> 32;
END;
