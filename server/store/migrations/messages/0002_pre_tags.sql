-- Which message carries which tag. Partitioned as messages are, so that a tag goes with the partition of its message.
-- The key begins with the tag and ends a tag's list in the order of its messages' ids, which is the order of their receipt.
CREATE TABLE messages.message_tags (
    tag_id      uuid NOT NULL,
    message_id  uuid NOT NULL,
    mailbox_id  uuid NOT NULL,
    seq         bigint NOT NULL,
    drop_after  timestamptz NOT NULL, -- the message's own, as is received_at: both are bounds of partitions
    received_at timestamptz NOT NULL,
    PRIMARY KEY (tag_id, message_id, drop_after, received_at)
) PARTITION BY RANGE (drop_after);
-- The tags of one message.
CREATE INDEX message_tags_message ON messages.message_tags (mailbox_id, seq);

CREATE TABLE messages.message_tags_forever PARTITION OF messages.message_tags
    FOR VALUES FROM ('infinity') TO (MAXVALUE) PARTITION BY RANGE (received_at);

-- A partition for each that the messages have already.
DO $$
DECLARE
    leaf record;
BEGIN
    FOR leaf IN
        SELECT replace(c.relname, 'messages_', 'message_tags_') AS name,
            replace(i.inhparent::regclass::text, 'messages.messages', 'messages.message_tags') AS parent,
            pg_get_expr(c.relpartbound, c.oid) AS bounds
        FROM pg_catalog.pg_inherits i
        JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent IN ('messages.messages'::regclass, 'messages.messages_forever'::regclass)
            AND c.relkind = 'r' AND NOT i.inhdetachpending
    LOOP
        EXECUTE format('CREATE TABLE messages.%I PARTITION OF %s %s', leaf.name, leaf.parent, leaf.bounds);
    END LOOP;
END
$$;
