-- Every statement the server runs on its hot and ordinary paths, each with the reason it is as it is.
-- Partition upkeep builds its own DDL (partitions.py), migrations are files of their own.

-- name: mailbox_insert
-- The unique index on the address decides a race for one address.
INSERT INTO mailboxes.mailboxes (id, local_part, domain, token_hash, user_id, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)

-- name: mailbox_by_id
SELECT id, local_part, domain, token_hash, user_id, created_at, expires_at FROM mailboxes.mailboxes WHERE id = $1

-- name: mailbox_by_address
SELECT id, local_part, domain, token_hash, user_id, created_at, expires_at
FROM mailboxes.mailboxes WHERE local_part = $1 AND domain = $2

-- name: mailbox_delete
DELETE FROM mailboxes.mailboxes WHERE id = $1

-- name: mailbox_token
UPDATE mailboxes.mailboxes SET token_hash = $2 WHERE id = $1

-- name: mailbox_extend
-- Never shortens: two extensions at once end at the later one.
UPDATE mailboxes.mailboxes SET expires_at = greatest(expires_at, $2) WHERE id = $1
RETURNING id, local_part, domain, token_hash, user_id, created_at, expires_at

-- name: mailboxes_expired
-- The sweep of any worker: SKIP LOCKED lets several sweep at once without meeting.
DELETE FROM mailboxes.mailboxes WHERE id IN (
    SELECT id FROM mailboxes.mailboxes WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
RETURNING id, local_part, domain

-- name: mailbox_expired_at
-- The same for one address: somebody wants it again before the sweep came by.
DELETE FROM mailboxes.mailboxes WHERE local_part = $1 AND domain = $2 AND expires_at <= $3 RETURNING id, local_part, domain

-- name: inbox_insert
INSERT INTO messages.inboxes (mailbox_id, drop_after, capacity) VALUES ($1, $2, $3)

-- name: inbox_counts
SELECT total, unread, next_seq, last_activity, drop_after FROM messages.inboxes WHERE mailbox_id = $1

-- name: inboxes_counts
SELECT mailbox_id, total, unread, next_seq, last_activity FROM messages.inboxes WHERE mailbox_id = ANY($1::uuid[])

-- name: inbox_delete
-- Its messages and bodies stay in their partition until that goes: they cannot be reached without this row.
DELETE FROM messages.inboxes WHERE mailbox_id = ANY($1::uuid[])

-- name: inboxes_expired
-- Orphans only (a mailbox that was never finished): a deleted or swept mailbox takes its inbox along.
DELETE FROM messages.inboxes WHERE mailbox_id IN (
    SELECT mailbox_id FROM messages.inboxes WHERE drop_after <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED
)

-- name: deliver
-- A whole batch in one statement, and so one round trip: while the event loop is busy with SMTP every further one would wait
-- its turn, which cost more than the statements themselves. In order: lock the inboxes in mailbox order, so that two workers
-- cannot deadlock; see whether all of them are there, alive and have room, and do nothing at all if not; count the mail in;
-- store each body once, to last as long as its longest recipient; store a row for each mailbox. Answers the first sequence
-- number and the drop_after that each inbox gave, or no row where nothing was done.
WITH wanted AS (
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::int[]) AS w (mailbox_id, n, fresh)
), locked AS MATERIALIZED (
    SELECT i.mailbox_id, i.next_seq,
        CASE WHEN i.drop_after = 'infinity' THEN $5::timestamptz ELSE i.drop_after END AS drop_after,
        i.drop_after > $4 AND (i.capacity = 0 OR i.total + w.n <= i.capacity) AS is_open
    FROM messages.inboxes i JOIN wanted w USING (mailbox_id)
    ORDER BY i.mailbox_id FOR UPDATE OF i
), verdict AS (
    SELECT count(*) FILTER (WHERE is_open) = cardinality($1) AS go FROM locked
), counted AS (
    UPDATE messages.inboxes i
    SET next_seq = i.next_seq + w.n, total = i.total + w.n, unread = i.unread + w.fresh, last_activity = $4
    FROM wanted w, verdict WHERE go AND i.mailbox_id = w.mailbox_id
), mails AS MATERIALIZED (
    SELECT * FROM unnest(
        $6::uuid[], $7::timestamptz[], $8::int[], $9::bytea[], $10::text[], $11::int[], $12::boolean[], $13::text[], $14::text[],
        $15::text[], $16::text[], $17::json[]
    ) WITH ORDINALITY AS m (
        id, received_at, refs, raw, text, size, is_read, envelope_from, sender, subject, preview, details, nth
    )
), arrived AS MATERIALIZED (
    SELECT r.mail, r.mailbox_id, r.recipient, l.next_seq + r.place AS seq, r.id_head, l.drop_after,
        max(l.drop_after) OVER (PARTITION BY r.mail) AS body_drop_after
    FROM unnest($18::int[], $19::uuid[], $20::int[], $21::text[], $22::text[]) AS r (mail, mailbox_id, place, id_head, recipient)
    JOIN locked l USING (mailbox_id), verdict
    WHERE go
), bodies AS (
    INSERT INTO messages.bodies (id, drop_after, received_at, refs, raw, text)
    SELECT m.id, a.body_drop_after, m.received_at, m.refs, m.raw, m.text
    FROM mails m JOIN (SELECT DISTINCT mail, body_drop_after FROM arrived) a ON a.mail = m.nth
), rows AS (
    INSERT INTO messages.messages (mailbox_id, seq, id, drop_after, received_at, body_id, body_drop_after, size, is_read,
        envelope_from, sender, recipient, subject, preview, details)
    SELECT a.mailbox_id, a.seq, (a.id_head || lpad(to_hex(a.seq), 8, '0'))::uuid, a.drop_after, m.received_at, m.id,
        a.body_drop_after, m.size, m.is_read, m.envelope_from, m.sender, a.recipient, m.subject, m.preview, m.details
    FROM arrived a JOIN mails m ON m.nth = a.mail
)
SELECT mailbox_id, next_seq AS first_seq, drop_after FROM locked, verdict WHERE go

-- name: inboxes_drop
-- When a batch's mail may vanish: asked only after a partition was found missing.
SELECT DISTINCT CASE WHEN drop_after = 'infinity' THEN $2::timestamptz ELSE drop_after END AS drop_after
FROM messages.inboxes WHERE mailbox_id = ANY($1::uuid[])

-- name: inboxes_room
-- Why a batch's inboxes were missing above: no row = gone, else how many more messages it takes (negative = without end).
SELECT mailbox_id, CASE WHEN capacity = 0 THEN -1 ELSE greatest(capacity - total, 0) END AS room
FROM messages.inboxes WHERE mailbox_id = ANY($1::uuid[]) AND drop_after > $2

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

-- name: inbox_lock
-- Deletion and extension take the lock that deliveries take.
SELECT drop_after, total, unread FROM messages.inboxes WHERE mailbox_id = $1 FOR UPDATE

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

-- name: inbox_subtract
UPDATE messages.inboxes SET total = total - $2, unread = unread - $3, last_activity = $4 WHERE mailbox_id = $1

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

-- name: inbox_move
UPDATE messages.inboxes SET drop_after = $2 WHERE mailbox_id = $1

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

-- name: notify
-- After the commit and on its own, so that the commit never waits for NOTIFY's lock; one statement a batch.
SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload
