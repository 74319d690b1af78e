-- The whole schema as the migrations leave it, for reading. A test applies this to one database and the migrations to
-- another and compares the two; the server itself only ever runs the migrations.

CREATE SCHEMA users;
CREATE SCHEMA mailboxes;
CREATE SCHEMA messages;

CREATE TABLE users.schema_migrations (number integer PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE mailboxes.schema_migrations (number integer PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE messages.schema_migrations (number integer PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());

-- Accounts. Nothing in another domain refers to this table by foreign key: it may live on a server of its own.
CREATE TABLE users.users (
    id                uuid PRIMARY KEY,
    email             text NOT NULL,
    username          text,
    password_hash     text NOT NULL,
    tier              text NOT NULL DEFAULT 'free' CHECK (tier IN ('free', 'basic', 'pro', 'enterprise')),
    role              text NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin', 'super')),
    is_active         boolean NOT NULL DEFAULT true,
    is_email_verified boolean NOT NULL DEFAULT false,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    last_login_at     timestamptz
);
-- Addresses and names are compared without case; citext is a contrib extension and so not relied on.
CREATE UNIQUE INDEX users_email ON users.users (lower(email));
CREATE UNIQUE INDEX users_username ON users.users (lower(username));

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

