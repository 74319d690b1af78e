-- Which mailbox's mail a delivery quotes: when the mailbox goes, what it quotes goes too.
ALTER TABLE messages.deliveries ADD mailbox_id uuid;
UPDATE messages.deliveries SET mailbox_id = (data ->> 'mailboxId')::uuid WHERE event = 'mail.received';
CREATE INDEX deliveries_mailbox_id ON messages.deliveries (mailbox_id) WHERE mailbox_id IS NOT NULL;
-- What is left of such an event.
CREATE FUNCTION messages.without_quotes(data json) RETURNS json LANGUAGE sql IMMUTABLE AS
    $$SELECT json_build_object('messageId', data ->> 'messageId', 'mailboxId', data ->> 'mailboxId', 'seq', data -> 'seq')$$;
