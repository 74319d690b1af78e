-- A user's own mail, whatever mailbox it is in.
CREATE INDEX inboxes_user_id ON messages.inboxes (user_id) WHERE user_id IS NOT NULL;
