-- A mailbox's lock, numbers and counters.

-- name: inbox_insert
INSERT INTO messages.inboxes (mailbox_id, drop_after, capacity, user_id) VALUES ($1, $2, $3, $4)

-- name: inbox_counts
SELECT total, unread, next_seq, last_activity, drop_after FROM messages.inboxes WHERE mailbox_id = $1

-- name: inboxes_counts
SELECT mailbox_id, total, unread, next_seq, last_activity FROM messages.inboxes WHERE mailbox_id = ANY($1::uuid[])

-- name: inboxes_end
SELECT mailbox_id, drop_after FROM messages.inboxes WHERE mailbox_id = ANY($1::uuid[])

-- name: inbox_delete
-- Its messages and bodies cannot be reached without this row. Where the time of the mailbox is over they stay in their
-- partition until that goes; $2 says that it was deleted, and then they go soon, as does mail whose partition never goes. The
-- log of webhooks forgets what it quotes of them. What is still to be delivered forgets it when it is over, or, of a deleted
-- mailbox, soon (deliveries_unquote).
WITH gone AS (
    DELETE FROM messages.inboxes WHERE mailbox_id = ANY($1::uuid[])
    RETURNING mailbox_id, user_id, drop_after, total
), erased AS (
    INSERT INTO messages.erasures (mailbox_id, drop_after)
    SELECT mailbox_id, drop_after FROM gone WHERE total > 0 AND ($2 OR drop_after = 'infinity')
    ON CONFLICT DO NOTHING
), forgotten AS (
    UPDATE messages.deliveries d SET mailbox_id = NULL, response = NULL, data = messages.without_quotes(d.data)
    FROM gone WHERE d.mailbox_id = gone.mailbox_id AND gone.user_id IS NOT NULL AND d.due_at IS NULL
), marked AS (
    UPDATE messages.deliveries d SET mailbox_id = '00000000-0000-0000-0000-000000000000'
    FROM gone WHERE d.mailbox_id = gone.mailbox_id AND gone.user_id IS NOT NULL AND d.due_at IS NOT NULL AND $2
)
SELECT mailbox_id, user_id FROM gone

-- name: inboxes_expired
-- Orphans only (a mailbox that was never finished): a deleted or swept mailbox takes its inbox along.
DELETE FROM messages.inboxes WHERE mailbox_id IN (
    SELECT mailbox_id FROM messages.inboxes WHERE drop_after <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED
)

-- name: deliver
-- A whole batch in one statement, and so one round trip: while the event loop is busy with SMTP every further one would wait
-- its turn, which cost more than the statements themselves. In order: lock the inboxes in mailbox order, so that two workers
-- cannot deadlock; see whether all of them are there, alive and have room, and do nothing at all if not; count the mail in;
-- store each body once, to last as long as its longest recipient; store a row for each mailbox. It goes if all inboxes are
-- there, alive and have room, and, unless $7 allows it, no webhook listens to them: the caller then repeats it in a
-- transaction with their deliveries. Who listens is decided here, by the database: no worker's memory can be behind. Answers
-- for each inbox what it gave (first sequence number, drop_after) or why not (room: NULL when over, negative = without end).
WITH wanted AS (
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::int[]) AS w (mailbox_id, n, fresh)
), locked AS MATERIALIZED (
    SELECT i.mailbox_id, i.next_seq,
        CASE WHEN i.drop_after = 'infinity' THEN $5::timestamptz ELSE i.drop_after END AS drop_after,
        i.drop_after > $4 AND (i.capacity = 0 OR i.total + w.n <= i.capacity) AS is_open,
        CASE WHEN i.drop_after > $4 THEN CASE WHEN i.capacity = 0 THEN -1 ELSE greatest(i.capacity - i.total, 0) END END AS room,
        i.user_id, CASE WHEN i.user_id IS NOT NULL THEN ARRAY(
            SELECT l.webhook_id FROM messages.listeners l WHERE l.user_id = i.user_id AND 'mail.received' = ANY(l.events)
        ) END AS listeners
    FROM messages.inboxes i JOIN wanted w USING (mailbox_id)
    ORDER BY i.mailbox_id FOR UPDATE OF i
), verdict AS (
    SELECT count(*) FILTER (WHERE is_open) = cardinality($1)
        AND ($7 OR coalesce(sum(cardinality(listeners)), 0) = 0) AS go
    FROM locked
), tallied AS (
    UPDATE messages.counters c
    SET received = c.received + new.n, day = greatest(c.day, new.day),
        today = CASE WHEN c.day < new.day THEN new.n ELSE c.today + new.n END
    FROM (SELECT coalesce(sum(n), 0) AS n, ($4::timestamptz AT TIME ZONE 'UTC')::date AS day FROM wanted) AS new, verdict
    WHERE go AND c.shard = pg_backend_pid() & 255
), counted AS (
    UPDATE messages.inboxes i
    SET next_seq = i.next_seq + w.n, total = i.total + w.n, unread = i.unread + w.fresh, last_activity = $4
    FROM wanted w, verdict WHERE go AND i.mailbox_id = w.mailbox_id
), arrived AS MATERIALIZED (
    SELECT r.*, l.next_seq + r.place AS seq, l.drop_after, CASE WHEN r.sharers IS NULL THEN l.drop_after ELSE (
            SELECT max(o.drop_after) FROM locked o WHERE o.mailbox_id = ANY(r.sharers)
        ) END AS body_drop_after
    FROM unnest($6::messages.letter[]) AS r JOIN locked l USING (mailbox_id), verdict
    WHERE go
), bodies AS (
    INSERT INTO messages.bodies (id, drop_after, received_at, refs, raw)
    SELECT body_id, body_drop_after, received_at, refs, raw FROM arrived WHERE raw IS NOT NULL
), rows AS (
    INSERT INTO messages.messages (mailbox_id, seq, id, drop_after, received_at, body_id, body_drop_after, size, is_read,
        envelope_from, sender, recipient, subject, preview, details)
    SELECT mailbox_id, seq, (id_head || lpad(to_hex(seq), 8, '0'))::uuid, drop_after, received_at, body_id, body_drop_after,
        size, is_read, envelope_from, sender, recipient, subject, preview, details
    FROM arrived
)
SELECT mailbox_id, next_seq AS first_seq, drop_after, room, user_id, listeners, go FROM locked, verdict

-- name: inboxes_drop
-- When a batch's mail may vanish: asked only after a partition was found missing.
SELECT DISTINCT CASE WHEN drop_after = 'infinity' THEN $2::timestamptz ELSE drop_after END AS drop_after
FROM messages.inboxes WHERE mailbox_id = ANY($1::uuid[])

-- name: inbox_lock
-- Deletion and extension take the lock that deliveries take.
SELECT drop_after, total, unread FROM messages.inboxes WHERE mailbox_id = $1 FOR UPDATE

-- name: inbox_subtract
UPDATE messages.inboxes SET total = total - $2, unread = unread - $3, last_activity = $4 WHERE mailbox_id = $1

-- name: inbox_move
UPDATE messages.inboxes SET drop_after = $2 WHERE mailbox_id = $1
