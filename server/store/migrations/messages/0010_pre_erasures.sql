-- Mailboxes that were deleted before their time: their mail has still to leave the disk. Whoever takes one moves due_at on, so
-- what a dead worker had taken is due again by itself.
CREATE TABLE messages.erasures (
    mailbox_id uuid PRIMARY KEY,
    drop_after timestamptz NOT NULL, -- the inbox's
    ended_at   timestamptz NOT NULL DEFAULT now(),
    due_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX erasures_due_at ON messages.erasures (due_at);
