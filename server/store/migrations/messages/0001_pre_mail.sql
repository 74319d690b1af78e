-- One row a mailbox: the lock that orders its mail, the next sequence number, the counters, and when its mail may vanish.
-- drop_after here is the authority: deliveries, extensions and deletions all take this row's lock before they act on it.
CREATE TABLE messages.inboxes (
    mailbox_id    uuid PRIMARY KEY,
    drop_after    timestamptz NOT NULL,
    next_seq      bigint NOT NULL DEFAULT 1,
    total         integer NOT NULL DEFAULT 0,
    unread        integer NOT NULL DEFAULT 0,
    capacity      integer NOT NULL DEFAULT 0 CHECK (capacity >= 0), -- messages it may hold; 0 = any number
    last_activity timestamptz
) WITH (fillfactor = 70); -- room for the counters' updates to stay on the page (HOT)
CREATE INDEX inboxes_drop_after ON messages.inboxes (drop_after);

-- One row for each mailbox a message reached. Mail vanishes by dropping the partition its drop_after lies in.
CREATE TABLE messages.messages (
    mailbox_id      uuid NOT NULL,
    seq             bigint NOT NULL,
    id              uuid NOT NULL, -- its low 32 bits are seq, so the index below serves look-ups by id as well
    drop_after      timestamptz NOT NULL,
    received_at     timestamptz NOT NULL,
    body_id         uuid NOT NULL,
    body_drop_after timestamptz NOT NULL,
    size            integer NOT NULL,
    is_read         boolean NOT NULL,
    envelope_from   text NOT NULL,
    sender          text NOT NULL,
    recipient       text NOT NULL,
    subject         text NOT NULL,
    preview         text NOT NULL,
    details         json NOT NULL -- what only some readers need: server.model.message.Details
) PARTITION BY RANGE (drop_after);
CREATE INDEX messages_mailbox_seq ON messages.messages (mailbox_id, seq);

-- The message as it came, once for each DATA however many mailboxes it reached; `refs` of them still hold it.
CREATE TABLE messages.bodies (
    id          uuid NOT NULL,
    drop_after  timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    refs        integer NOT NULL,
    raw         bytea NOT NULL, -- zstd
    text        text NOT NULL   -- the beginning of the readable text, for search
) PARTITION BY RANGE (drop_after);
ALTER TABLE messages.bodies ALTER raw SET STORAGE EXTERNAL, ALTER text SET STORAGE EXTERNAL; -- pglz would cost 36 us a mail
CREATE INDEX bodies_id ON messages.bodies (id);

-- Mail kept for ever lies under the open-ended last range, by month of receipt.
CREATE TABLE messages.messages_forever PARTITION OF messages.messages
    FOR VALUES FROM ('infinity') TO (MAXVALUE) PARTITION BY RANGE (received_at);
CREATE TABLE messages.bodies_forever PARTITION OF messages.bodies
    FOR VALUES FROM ('infinity') TO (MAXVALUE) PARTITION BY RANGE (received_at);
