-- Every address that leads to a mailbox: its own and its aliases. One key over both, so that the database decides who gets an
-- address, whatever asks for it at the same moment. Deleting the mailbox frees them all in the same statement.
CREATE TABLE mailboxes.addresses (
    local_part text NOT NULL,
    domain     text NOT NULL,
    mailbox_id uuid NOT NULL REFERENCES mailboxes.mailboxes (id) ON DELETE CASCADE,
    alias_id   uuid, -- NULL: the mailbox's own
    is_active  boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (domain, local_part)
);
-- A mailbox's aliases, and what its deletion frees.
CREATE INDEX addresses_mailbox_id ON mailboxes.addresses (mailbox_id, alias_id);

INSERT INTO mailboxes.addresses (local_part, domain, mailbox_id, created_at)
SELECT local_part, domain, id, created_at FROM mailboxes.mailboxes;

DROP INDEX mailboxes.mailboxes_address; -- the primary key above takes its place
