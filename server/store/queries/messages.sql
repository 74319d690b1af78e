-- Mail itself: lists, one, bodies, search, deletion, moving.

-- name: message_pages
-- A page of each of several mailboxes: n says of which. $5..$6 is the span of drop_after that the mailboxes' records name,
-- which prunes to their partitions when the plan is made; each inbox's own drop_after prunes to its one when it is read. The join
-- brings the counters along and says where the mail really lies: after an extension out of the span the caller asks again.
SELECT asked.n, i.total, i.drop_after AS inbox_drop_after, m.*
FROM unnest($1::uuid[], $2::bigint[], $3::integer[], $4::integer[])
    WITH ORDINALITY AS asked (mailbox_id, before, most, skipped, n)
JOIN messages.inboxes i ON i.mailbox_id = asked.mailbox_id
LEFT JOIN LATERAL (
    SELECT m.mailbox_id, m.seq, m.id, m.received_at, m.body_id, m.body_drop_after, m.size, m.is_read, m.envelope_from,
        m.sender, m.recipient, m.subject, m.preview, m.details
    FROM messages.messages m
    WHERE m.mailbox_id = asked.mailbox_id AND m.seq < asked.before AND m.drop_after BETWEEN $5 AND $6
        AND m.drop_after >= CASE WHEN i.drop_after = 'infinity' THEN $5 ELSE i.drop_after END
        AND m.drop_after <= i.drop_after
    ORDER BY m.seq DESC LIMIT asked.most OFFSET asked.skipped
) m ON true
ORDER BY asked.n, m.seq DESC

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

-- name: messages_authenticated
-- What was found out about a message after it was stored. Takes no lock on the inboxes, which arriving mail waits for: a row
-- that is just being moved elsewhere is an error, and stays as it is.
UPDATE messages.messages m
SET details = (m.details::jsonb || $6::jsonb)::json
FROM unnest($1::uuid[], $2::bigint[], $3::uuid[]) AS stored (mailbox_id, seq, id)
WHERE m.mailbox_id = stored.mailbox_id AND m.seq = stored.seq AND m.id = stored.id AND m.drop_after BETWEEN $4 AND $5

-- name: message_delete
-- Its tags go along, and the log of webhooks forgets what it quotes of it; what is still to be delivered is marked, and
-- forgets it soon (deliveries_unquote). The body is released by the caller.
WITH gone AS (
    DELETE FROM messages.messages
    WHERE mailbox_id = $1 AND drop_after BETWEEN $2 AND $3 AND seq = $4 AND id = $5
    RETURNING seq, id, body_id, body_drop_after, is_read, tableoid::regclass::text AS leaf
), untagged AS (
    DELETE FROM messages.message_tags t
    WHERE t.mailbox_id = $1 AND t.drop_after BETWEEN $2 AND $3 AND t.seq IN (SELECT seq FROM gone)
), forgotten AS (
    UPDATE messages.deliveries d
    SET mailbox_id = CASE WHEN d.due_at IS NOT NULL THEN '00000000-0000-0000-0000-000000000000'::uuid END,
        response = CASE WHEN d.due_at IS NOT NULL THEN d.response END,
        data = CASE WHEN d.due_at IS NOT NULL THEN d.data ELSE messages.without_quotes(d.data) END
    FROM gone WHERE d.mailbox_id = $1 AND d.data ->> 'messageId' = gone.id::text
)
SELECT body_id, body_drop_after, is_read, leaf FROM gone

-- name: message_delete_some
-- The same for the oldest $4.
WITH gone AS (
    DELETE FROM messages.messages
    WHERE mailbox_id = $1 AND drop_after BETWEEN $2 AND $3 AND seq IN (
        SELECT seq FROM messages.messages WHERE mailbox_id = $1 AND drop_after BETWEEN $2 AND $3 ORDER BY seq LIMIT $4
    )
    RETURNING seq, id, body_id, body_drop_after, is_read, tableoid::regclass::text AS leaf
), untagged AS (
    DELETE FROM messages.message_tags t
    WHERE t.mailbox_id = $1 AND t.drop_after BETWEEN $2 AND $3 AND t.seq IN (SELECT seq FROM gone)
), forgotten AS (
    UPDATE messages.deliveries d
    SET mailbox_id = CASE WHEN d.due_at IS NOT NULL THEN '00000000-0000-0000-0000-000000000000'::uuid END,
        response = CASE WHEN d.due_at IS NOT NULL THEN d.response END,
        data = CASE WHEN d.due_at IS NOT NULL THEN d.data ELSE messages.without_quotes(d.data) END
    FROM gone WHERE d.mailbox_id = $1 AND d.data ->> 'messageId' = gone.id::text
)
SELECT body_id, body_drop_after, is_read, leaf FROM gone

-- name: bodies_release
-- So many references less for each; the last one takes the body along. Locked in one order first, so that two mailboxes that
-- share bodies cannot deadlock. $3 and $4 are the first and the last drop_after among them: partitions are pruned by
-- parameters only. Answers the partitions that bodies went from.
WITH held AS MATERIALIZED (
    SELECT b.id, b.drop_after, b.refs - held.n AS left
    FROM messages.bodies b JOIN unnest($1::uuid[], $2::int[]) AS held (id, n) ON held.id = b.id
    WHERE b.drop_after BETWEEN $3 AND $4
    ORDER BY b.id FOR UPDATE OF b
), gone AS (
    DELETE FROM messages.bodies b USING held
    WHERE b.id = held.id AND b.drop_after = held.drop_after AND b.drop_after BETWEEN $3 AND $4 AND held.left <= 0
    RETURNING b.tableoid::regclass::text AS leaf
), kept AS (
    UPDATE messages.bodies b SET refs = held.left FROM held
    WHERE b.id = held.id AND b.drop_after = held.drop_after AND b.drop_after BETWEEN $3 AND $4 AND held.left > 0
)
SELECT DISTINCT leaf FROM gone

-- name: bodies_copy
-- An extended mailbox takes its own copy of each body to its new partition, under the message's id (unique there), and lets
-- go of the old one, which other recipients may still hold.
INSERT INTO messages.bodies (id, drop_after, received_at, refs, raw)
SELECT m.id, $4, b.received_at, 1, b.raw
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
-- Bounded by the session's statement_timeout. One statement for every query: a message is found when no term fails, and NULL
-- leaves a bound out. $8..$10 are the terms that the row itself answers (kind, value, negated). $11 and $12 are those that the
-- text of the body may answer as well (pattern, negated): `misses` names those of them, counted from 1, that nothing in the row
-- answers plainly (what is folded alike the caller sees), and `raw` is then the beginning of the packed body, for the caller to look in; a row that already fails is not
-- brought. Values are LIKE patterns, folded and escaped by the caller. A query without $11 is planned without the bodies and counted here;
-- with it the caller asks again below the last seq.
SELECT found.*, CASE WHEN cardinality($11::text[]) > 0 AND cardinality(found.misses) > 0 THEN (
    SELECT substr(b.raw, 1, 400000) FROM messages.bodies b
    WHERE b.id = found.body_id AND b.drop_after = found.body_drop_after AND b.drop_after >= $2 LIMIT 1
) END AS raw
FROM (
    SELECT CASE WHEN cardinality($11::text[]) = 0 THEN count(*) OVER () END AS found, i.drop_after AS inbox_drop_after, i.total,
        m.mailbox_id, m.seq, m.id, m.received_at, m.body_id, m.body_drop_after, m.size, m.is_read, m.envelope_from, m.sender,
        m.recipient, m.subject, m.preview, m.details,
        CASE WHEN cardinality($11::text[]) > 0 THEN ARRAY(
            SELECT term.nth FROM unnest($11::text[], $12::boolean[]) WITH ORDINALITY AS term (value, negated, nth)
            WHERE NOT (lower(m.subject) LIKE term.value OR lower(m.sender) LIKE term.value OR lower(m.recipient) LIKE term.value)
        ) END AS misses
    FROM messages.inboxes i
    JOIN messages.messages m ON m.mailbox_id = i.mailbox_id
    WHERE i.mailbox_id = $1 AND m.mailbox_id = $1 AND m.drop_after BETWEEN $2 AND $3 AND m.seq < $13
        AND ($4::timestamptz IS NULL OR m.received_at >= $4)
        AND ($5::timestamptz IS NULL OR m.received_at < $5)
        AND ($6::bigint IS NULL OR m.size >= $6)
        AND ($7::bigint IS NULL OR m.size <= $7)
        AND (cardinality($8::text[]) = 0 OR NOT EXISTS (
            SELECT 1 FROM unnest($8::text[], $9::text[], $10::boolean[]) AS term (kind, value, negated)
            WHERE term.negated = CASE term.kind
                WHEN 'from' THEN messages.folded(m.sender) LIKE term.value OR messages.folded(m.envelope_from) LIKE term.value
                WHEN 'to' THEN messages.folded(m.recipient) LIKE term.value
                    OR messages.folded(coalesce(m.details ->> 'cc', '')) LIKE term.value
                WHEN 'subject' THEN messages.folded(m.subject) LIKE term.value
                WHEN 'attachment' THEN EXISTS (
                    SELECT 1 FROM json_array_elements(m.details -> 'attachments') AS one
                    WHERE one ->> 'inline' IS DISTINCT FROM 'true'
                )
                WHEN 'read' THEN m.is_read
                WHEN 'dmarc' THEN coalesce(m.details ->> 'dmarc', 'none') = term.value
                WHEN 'tag' THEN EXISTS (
                    SELECT 1 FROM messages.message_tags t
                    WHERE t.mailbox_id = $1 AND t.drop_after BETWEEN $2 AND $3 AND t.seq = m.seq AND t.tag_id = term.value::uuid
                )
            END
        ))
        AND (cardinality($11::text[]) = 0 OR NOT EXISTS (
            SELECT 1 FROM unnest($11::text[], $12::boolean[]) AS term (value, negated)
            WHERE term.negated AND (lower(m.subject) LIKE term.value OR lower(m.sender) LIKE term.value OR lower(m.recipient) LIKE term.value)
        ))
    ORDER BY m.seq DESC LIMIT $14 OFFSET $15
) found
ORDER BY found.seq DESC
