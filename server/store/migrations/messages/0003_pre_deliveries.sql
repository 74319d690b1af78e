-- Whose mailbox it is, so that a batch knows from the rows it locks anyway who is to be told of its mail.
ALTER TABLE messages.inboxes ADD user_id uuid;

-- This domain's copy of who listens to what: at least every active webhook of users.webhooks, for a moment perhaps one that
-- is not active any more (deliveries ask again before they send).
CREATE TABLE messages.listeners (
    webhook_id uuid PRIMARY KEY,
    user_id    uuid NOT NULL,
    events     text[] NOT NULL
);
CREATE INDEX listeners_user_id ON messages.listeners (user_id);

-- The outbox and the log of webhooks: a row is written with what it tells of, and is tried when due_at has come. Taking one
-- moves due_at to the end of a lease, so what a dead worker had taken is due again by itself.
CREATE TABLE messages.deliveries (
    id          uuid PRIMARY KEY, -- sorts by time: retention needs no index of its own
    webhook_id  uuid NOT NULL,
    user_id     uuid NOT NULL,
    event       text NOT NULL,
    data        json NOT NULL, -- as text, for a payload is the same bytes at every attempt
    created_at  timestamptz NOT NULL,
    due_at      timestamptz,
    fence       integer NOT NULL DEFAULT 0,
    attempts    integer NOT NULL DEFAULT 0,
    success     boolean NOT NULL DEFAULT false,
    status_code integer,
    response    text,
    duration    integer, -- ms
    error       text
);
CREATE INDEX deliveries_webhook_id ON messages.deliveries (webhook_id, id);
CREATE INDEX deliveries_due_at ON messages.deliveries (due_at) WHERE due_at IS NOT NULL;
