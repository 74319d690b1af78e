-- Tags: names and colours in the domain users, who carries which in the domain messages. No statement knows both.

-- name: tag_insert
-- Bounded: $7 tags an account. The unique index decides a race for one name.
INSERT INTO users.tags (id, user_id, name, color, description, created_at, updated_at)
SELECT $1, $2, $3, $4, $5, $6, $6
WHERE (SELECT count(*) FROM users.tags WHERE user_id = $2) < $7

-- name: tags_of_user
SELECT id, user_id, name, color, description, created_at, updated_at FROM users.tags WHERE user_id = $1 ORDER BY id

-- name: tag_one
SELECT id, user_id, name, color, description, created_at, updated_at FROM users.tags WHERE user_id = $1 AND id = $2

-- name: tags_named
-- What tag: in a search means. Names are compared as the unique index does.
SELECT asked.name, t.id
FROM unnest($2::text[]) AS asked (name)
JOIN users.tags t ON t.user_id = $1 AND lower(t.name) = lower(asked.name)

-- name: tag_update
-- NULL leaves a column as it is.
UPDATE users.tags
SET name = coalesce($3, name), color = coalesce($4, color), description = coalesce($5, description), updated_at = $6
WHERE user_id = $1 AND id = $2
RETURNING id, user_id, name, color, description, created_at, updated_at

-- name: tag_delete
DELETE FROM users.tags WHERE user_id = $1 AND id = $2

-- name: tag_counts
-- Counted when asked for: a counter could not follow messages that vanish with their partition. The key begins with the tag,
-- so each partition that is still alive is one probe, and the cost is that of the tagged messages alone. A mailbox that is
-- gone has no inbox any more. $3, where it is given, are the ends of the user's mailboxes: with them the plan has their
-- partitions alone, and planning for all of them took far longer than the rest.
SELECT t.tag_id, count(*) AS n
FROM messages.message_tags t
JOIN messages.inboxes i ON i.mailbox_id = t.mailbox_id AND i.drop_after > $2
WHERE t.tag_id = ANY($1::uuid[]) AND t.drop_after > $2 AND ($3::timestamptz[] IS NULL OR t.drop_after = ANY($3))
GROUP BY t.tag_id

-- name: ends_of_user
-- When the mail of a user's mailboxes may vanish.
SELECT DISTINCT drop_after FROM messages.inboxes WHERE user_id = $1 AND drop_after > $2 LIMIT $3

-- name: tag_messages
-- A tag's messages, newest first, whatever mailbox they are in: ids sort by time, and $3 is the last one seen. $5 as $3 above.
SELECT m.mailbox_id, m.seq, m.id, m.received_at, m.body_id, m.body_drop_after, m.size, m.is_read, m.envelope_from,
    m.sender, m.recipient, m.subject, m.preview, m.details
FROM messages.message_tags t
JOIN messages.inboxes i ON i.mailbox_id = t.mailbox_id AND i.drop_after > $2
JOIN messages.messages m ON m.mailbox_id = t.mailbox_id AND m.seq = t.seq AND m.drop_after = t.drop_after
    AND m.drop_after > $2 AND ($5::timestamptz[] IS NULL OR m.drop_after = ANY($5))
WHERE t.tag_id = $1 AND t.drop_after > $2 AND ($5::timestamptz[] IS NULL OR t.drop_after = ANY($5)) AND t.message_id < $3 AND m.id = t.message_id
ORDER BY t.message_id DESC LIMIT $4

-- name: message_tag
-- Again is no error. The answer says whether there is such a message at all.
WITH message AS (
    SELECT m.id, m.mailbox_id, m.seq, m.drop_after, m.received_at
    FROM messages.messages m
    WHERE m.mailbox_id = $1 AND m.drop_after BETWEEN $2 AND $3 AND m.seq = $4 AND m.id = $5
), tagged AS (
    INSERT INTO messages.message_tags (tag_id, message_id, mailbox_id, seq, drop_after, received_at)
    SELECT $6, id, mailbox_id, seq, drop_after, received_at FROM message
    ON CONFLICT DO NOTHING
)
SELECT id FROM message

-- name: message_tags
-- No row without the inbox, NULLs for a message that is not there or carries none.
SELECT i.drop_after AS inbox_drop_after, m.id, t.tag_id
FROM messages.inboxes i
LEFT JOIN messages.messages m ON m.mailbox_id = $1 AND m.drop_after BETWEEN $2 AND $3 AND m.seq = $4 AND m.id = $5
LEFT JOIN messages.message_tags t ON t.mailbox_id = $1 AND t.drop_after BETWEEN $2 AND $3 AND t.seq = $4
WHERE i.mailbox_id = $1

-- name: message_untag
DELETE FROM messages.message_tags
WHERE mailbox_id = $1 AND drop_after BETWEEN $2 AND $3 AND seq = $4 AND message_id = $5 AND tag_id = $6

-- name: message_tags_move
-- With their messages when a mailbox lives longer.
UPDATE messages.message_tags SET drop_after = $4 WHERE mailbox_id = $1 AND drop_after BETWEEN $2 AND $3

-- name: tag_clear
-- A tag is gone: nobody carries it any more.
DELETE FROM messages.message_tags WHERE tag_id = $1
