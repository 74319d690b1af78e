-- Who and what is not let in: networks, senders, senders' domains, and names of mailboxes.
CREATE TABLE users.bans (
    id         uuid PRIMARY KEY,
    kind       text NOT NULL CHECK (kind IN ('network', 'sender', 'senderDomain', 'localPart')),
    value      text NOT NULL,
    reason     text NOT NULL,
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    expires_at timestamptz,
    UNIQUE (kind, value)
);
