-- Who may read what: an address, the hash of its token, and when it ends. Its mail is in the domain `messages`.
CREATE TABLE mailboxes.mailboxes (
    id         uuid PRIMARY KEY,
    local_part text NOT NULL,
    domain     text NOT NULL,
    token_hash bytea NOT NULL CHECK (octet_length(token_hash) = 32),
    user_id    uuid,
    created_at timestamptz NOT NULL,
    expires_at timestamptz
);
-- RCPT asks by address; two mailboxes never share one.
CREATE UNIQUE INDEX mailboxes_address ON mailboxes.mailboxes (local_part, domain);
-- The sweeper takes the oldest first; mailboxes kept for ever are not in its way.
CREATE INDEX mailboxes_expires_at ON mailboxes.mailboxes (expires_at) WHERE expires_at IS NOT NULL;
-- A user's own list, newest first (ids sort by time).
CREATE INDEX mailboxes_user_id ON mailboxes.mailboxes (user_id, id) WHERE user_id IS NOT NULL;
