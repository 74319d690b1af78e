-- A mailbox that administrators have disabled takes no mail; its address stays taken.
ALTER TABLE mailboxes.mailboxes ADD disabled boolean NOT NULL DEFAULT false;

-- Who made which mailbox, for the days that CREATOR_RETENTION says, also when the mailbox is gone.
CREATE TABLE mailboxes.creators (
    mailbox_id uuid PRIMARY KEY,
    local_part text NOT NULL,
    domain     text NOT NULL,
    client     inet,
    user_id    uuid,
    at         timestamptz NOT NULL
);
CREATE INDEX creators_at ON mailboxes.creators (at);
CREATE INDEX creators_client ON mailboxes.creators USING gist (client inet_ops);
