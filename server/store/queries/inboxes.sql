-- A mailbox's lock, numbers and counters.

-- name: inbox_insert
INSERT INTO messages.inboxes (mailbox_id, drop_after, capacity, user_id) VALUES ($1, $2, $3, $4)

-- name: inbox_counts
SELECT total, unread, next_seq, last_activity, drop_after FROM messages.inboxes WHERE mailbox_id = $1

-- name: inboxes_counts
SELECT mailbox_id, total, unread, next_seq, last_activity FROM messages.inboxes WHERE mailbox_id = ANY($1::uuid[])

-- name: inbox_delete
-- Its messages and bodies stay in their partition until that goes: they cannot be reached without this row.
DELETE FROM messages.inboxes WHERE mailbox_id = ANY($1::uuid[]) RETURNING mailbox_id, user_id

-- name: inboxes_expired
-- Orphans only (a mailbox that was never finished): a deleted or swept mailbox takes its inbox along.
DELETE FROM messages.inboxes WHERE mailbox_id IN (
    SELECT mailbox_id FROM messages.inboxes WHERE drop_after <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED
)

-- name: inboxes_take
-- One statement locks a batch's inboxes, in mailbox order so that two workers cannot deadlock, counts the mail in and hands
-- out the sequence numbers: an inbox that is gone, over or full is missing from the answer, and the caller rolls back. Who
-- listens to mail of an owned mailbox is decided here too, by the database: no worker's memory can be behind. The batch is
-- counted in as well, in the row of this connection, so that batches do not wait for one another.
WITH taken AS (
UPDATE messages.inboxes i
SET next_seq = i.next_seq + batch.n, total = i.total + batch.n, unread = i.unread + batch.fresh, last_activity = $4
FROM (
    SELECT locked.mailbox_id, wanted.n, wanted.fresh
    FROM messages.inboxes locked
    JOIN unnest($1::uuid[], $2::int[], $3::int[]) AS wanted (mailbox_id, n, fresh) USING (mailbox_id)
    ORDER BY locked.mailbox_id FOR UPDATE OF locked
) AS batch
WHERE i.mailbox_id = batch.mailbox_id AND i.drop_after > $4 AND (i.capacity = 0 OR i.total + batch.n <= i.capacity)
RETURNING i.mailbox_id, i.next_seq - batch.n AS first_seq, i.drop_after, i.user_id,
    CASE WHEN i.user_id IS NOT NULL THEN ARRAY(
        SELECT l.webhook_id FROM messages.listeners l WHERE l.user_id = i.user_id AND 'mail.received' = ANY(l.events)
    ) END AS listeners, batch.n
), counted AS (
    UPDATE messages.counters c
    SET received = c.received + new.n, day = greatest(c.day, new.day),
        today = CASE WHEN c.day < new.day THEN new.n ELSE c.today + new.n END
    FROM (SELECT coalesce(sum(n), 0) AS n, ($4::timestamptz AT TIME ZONE 'UTC')::date AS day FROM taken) AS new
    WHERE c.shard = pg_backend_pid() & 255
)
SELECT mailbox_id, first_seq, drop_after, user_id, listeners FROM taken

-- name: inboxes_room
-- Why a batch's inboxes were missing above: no row = gone, else how many more messages it takes (negative = without end).
SELECT mailbox_id, CASE WHEN capacity = 0 THEN -1 ELSE greatest(capacity - total, 0) END AS room
FROM messages.inboxes WHERE mailbox_id = ANY($1::uuid[]) AND drop_after > $2

-- name: inbox_lock
-- Deletion and extension take the lock that deliveries take.
SELECT drop_after, total, unread FROM messages.inboxes WHERE mailbox_id = $1 FOR UPDATE

-- name: inbox_subtract
UPDATE messages.inboxes SET total = total - $2, unread = unread - $3, last_activity = $4 WHERE mailbox_id = $1

-- name: inbox_move
UPDATE messages.inboxes SET drop_after = $2 WHERE mailbox_id = $1
