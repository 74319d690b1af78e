-- Mail itself: lists, one, bodies, search, deletion, moving.

-- name: message_page
-- $2..$3 is the span of drop_after the mailbox's record names, which prunes to its partition when the plan is made. The join
-- brings the counters along and says where the mail really lies: after an extension elsewhere the caller asks again there.
SELECT i.total, i.drop_after AS inbox_drop_after, m.*
FROM messages.inboxes i
LEFT JOIN LATERAL (
    SELECT m.mailbox_id, m.seq, m.id, m.received_at, m.body_id, m.body_drop_after, m.size, m.is_read, m.envelope_from,
        m.sender, m.recipient, m.subject, m.preview, m.details
    FROM messages.messages m
    WHERE m.mailbox_id = $1 AND m.drop_after BETWEEN $2 AND $3 AND m.seq < $4
    ORDER BY m.seq DESC LIMIT $5 OFFSET $6
) m ON true
WHERE i.mailbox_id = $1
ORDER BY m.seq DESC

-- name: message_one
-- By id through its seq, which is part of it.
SELECT i.total, i.drop_after AS inbox_drop_after, m.*
FROM messages.inboxes i
LEFT JOIN LATERAL (
    SELECT m.mailbox_id, m.seq, m.id, m.received_at, m.body_id, m.body_drop_after, m.size, m.is_read, m.envelope_from,
        m.sender, m.recipient, m.subject, m.preview, m.details
    FROM messages.messages m
    WHERE m.mailbox_id = $1 AND m.drop_after BETWEEN $2 AND $3 AND m.seq = $4 AND m.id = $5
) m ON true
WHERE i.mailbox_id = $1

-- name: messages_since
-- What readers of many mailboxes have missed, 100 each, oldest first: live push, reconnection and repair all ask this. The
-- span comes from each inbox, so partitions are pruned while the statement runs.
SELECT m.*
FROM unnest($1::uuid[], $2::bigint[]) AS reader (mailbox_id, after)
JOIN messages.inboxes i USING (mailbox_id)
CROSS JOIN LATERAL (
    SELECT m.mailbox_id, m.seq, m.id, m.received_at, m.body_id, m.body_drop_after, m.size, m.is_read, m.envelope_from,
        m.sender, m.recipient, m.subject, m.preview, m.details
    FROM messages.messages m
    WHERE m.mailbox_id = i.mailbox_id AND m.seq > reader.after AND m.drop_after <= i.drop_after
        AND m.drop_after >= CASE WHEN i.drop_after = 'infinity' THEN now() ELSE i.drop_after END
    ORDER BY m.seq LIMIT 100
) m
ORDER BY m.mailbox_id, m.seq

-- name: body
-- LIMIT because a body copied by an extension keeps no index that promises there is one.
SELECT raw FROM messages.bodies WHERE id = $1 AND drop_after = $2 LIMIT 1

-- name: message_mark_read
UPDATE messages.messages SET is_read = true
WHERE mailbox_id = $1 AND drop_after BETWEEN $2 AND $3 AND seq = $4 AND id = $5 AND NOT is_read

-- name: message_delete
DELETE FROM messages.messages
WHERE mailbox_id = $1 AND drop_after BETWEEN $2 AND $3 AND seq = $4 AND id = $5
RETURNING body_id, body_drop_after, is_read

-- name: message_delete_all
DELETE FROM messages.messages WHERE mailbox_id = $1 AND drop_after BETWEEN $2 AND $3
RETURNING body_id, body_drop_after, is_read

-- name: bodies_release
-- One reference less for each; the last one takes the body along. Two statements, since one cannot touch a row twice.
UPDATE messages.bodies b SET refs = b.refs - 1
FROM unnest($1::uuid[], $2::timestamptz[]) AS held (id, drop_after)
WHERE b.id = held.id AND b.drop_after = held.drop_after

-- name: bodies_sweep
DELETE FROM messages.bodies b USING unnest($1::uuid[], $2::timestamptz[]) AS held (id, drop_after)
WHERE b.id = held.id AND b.drop_after = held.drop_after AND b.refs <= 0

-- name: bodies_copy
-- An extended mailbox takes its own copy of each body to its new partition, under the message's id (unique there), and lets
-- go of the old one, which other recipients may still hold.
INSERT INTO messages.bodies (id, drop_after, received_at, refs, raw, text)
SELECT m.id, $4, b.received_at, 1, b.raw, b.text
FROM messages.messages m
JOIN messages.bodies b ON b.id = m.body_id AND b.drop_after = m.body_drop_after
WHERE m.mailbox_id = $1 AND m.drop_after BETWEEN $2 AND $3 AND b.drop_after BETWEEN $2 AND $4 AND m.body_drop_after < $4

-- name: messages_held
SELECT body_id, body_drop_after FROM messages.messages
WHERE mailbox_id = $1 AND drop_after BETWEEN $2 AND $3 AND body_drop_after < $4

-- name: messages_move
-- An UPDATE of the partition key moves the row. What lay under a later body stays with it.
UPDATE messages.messages
SET drop_after = $4, body_id = CASE WHEN body_drop_after < $4 THEN id ELSE body_id END,
    body_drop_after = greatest(body_drop_after, $4)
WHERE mailbox_id = $1 AND drop_after BETWEEN $2 AND $3

-- name: search
-- Bounded by the session's statement_timeout. ILIKE patterns are escaped by the caller; NULL leaves a condition out. The text
-- of a body is its first 32,768 characters.
SELECT count(*) OVER () AS found, i.drop_after AS inbox_drop_after, i.total, m.mailbox_id, m.seq, m.id, m.received_at,
    m.body_id, m.body_drop_after, m.size, m.is_read, m.envelope_from, m.sender, m.recipient, m.subject, m.preview, m.details
FROM messages.inboxes i
JOIN messages.messages m ON m.mailbox_id = i.mailbox_id
WHERE i.mailbox_id = $1 AND m.mailbox_id = $1 AND m.drop_after BETWEEN $2 AND $3
    AND ($4::text IS NULL OR m.sender ILIKE $4 OR m.envelope_from ILIKE $4)
    AND ($5::text IS NULL OR m.subject ILIKE $5)
    AND ($6::timestamptz IS NULL OR m.received_at >= $6)
    AND ($7::timestamptz IS NULL OR m.received_at < $7)
    AND ($8::boolean IS NULL OR m.is_read = $8)
    AND ($9::boolean IS NULL OR (m.details -> 'attachments' IS NOT NULL) = $9)
    AND ($10::text IS NULL OR m.subject ILIKE $10 OR m.sender ILIKE $10 OR m.recipient ILIKE $10
        OR EXISTS (
            SELECT 1 FROM messages.bodies b
            WHERE b.id = m.body_id AND b.drop_after = m.body_drop_after AND b.text ILIKE $10
        ))
ORDER BY m.seq DESC LIMIT $11 OFFSET $12
