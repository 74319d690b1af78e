-- The outbox of webhooks and its log, in the domain of messages.

-- name: listener_widen
-- Before the webhook itself is changed: whatever it will listen to is recorded from here on.
INSERT INTO messages.listeners AS l (webhook_id, user_id, events) VALUES ($1, $2, $3)
ON CONFLICT (webhook_id) DO UPDATE SET events = ARRAY(
    SELECT DISTINCT event FROM unnest(l.events || excluded.events) AS event
)

-- name: listeners_narrow
-- After it: what no webhook of the user listens to any more is no longer recorded.
WITH wanted AS (
    SELECT webhook_id, string_to_array(events, ',') AS events
    FROM unnest($2::uuid[], $3::text[]) AS wanted (webhook_id, events)
), gone AS (
    DELETE FROM messages.listeners l
    WHERE l.user_id = $1 AND NOT EXISTS (SELECT 1 FROM wanted w WHERE w.webhook_id = l.webhook_id)
)
INSERT INTO messages.listeners AS l (webhook_id, user_id, events) SELECT w.webhook_id, $1, w.events FROM wanted w
ON CONFLICT (webhook_id) DO UPDATE SET events = excluded.events WHERE l.events <> excluded.events

-- name: deliveries_record
-- One row for each webhook of the user that listens; $1 has an id for as many as a user may have.
INSERT INTO messages.deliveries (id, webhook_id, user_id, event, data, created_at, due_at)
SELECT names.id, heard.webhook_id, $2, $3, $4::text::json, $5::timestamptz, $5
FROM (
    SELECT l.webhook_id, row_number() OVER (ORDER BY l.webhook_id) AS place
    FROM messages.listeners l WHERE l.user_id = $2 AND $3::text = ANY(l.events)
) heard
JOIN unnest($1::uuid[]) WITH ORDINALITY AS names (id, place) USING (place)

-- name: delivery_insert
INSERT INTO messages.deliveries (id, webhook_id, user_id, event, data, created_at, due_at, fence)
VALUES ($1, $2, $3, $4, $5::text::json, $6, $7, $8)

-- name: deliveries_take
-- The oldest that are due, a few of each webhook so that a long queue for one holds up no other, none of those ($1) whose
-- target has its hands full. The lock is taken after the choice, so the condition on due_at stands there again: a row that
-- another worker has just taken no longer meets it. now() is the database's: leases hold across hosts.
WITH oldest AS (
    SELECT d.id, d.webhook_id, d.due_at
    FROM messages.deliveries d
    WHERE d.due_at <= now() AND d.webhook_id <> ALL($1::uuid[])
    ORDER BY d.due_at LIMIT 1000
), fair AS (
    SELECT oldest.id, oldest.due_at, row_number() OVER (PARTITION BY oldest.webhook_id ORDER BY oldest.due_at) AS place FROM oldest
), taken AS (
    SELECT d.id
    FROM messages.deliveries d JOIN fair USING (id)
    WHERE fair.place <= $2 AND d.due_at <= now()
    ORDER BY fair.due_at LIMIT $3
    FOR UPDATE OF d SKIP LOCKED
)
UPDATE messages.deliveries d SET due_at = now() + $4::float8 * interval '1 s', fence = d.fence + 1
FROM taken WHERE d.id = taken.id
RETURNING d.*

-- name: deliveries_return
-- Taken, but not tried: somebody else may. The fence says that it still is ours.
UPDATE messages.deliveries d SET due_at = now()
FROM unnest($1::uuid[], $2::int[]) AS held (id, fence)
WHERE d.id = held.id AND d.fence = held.fence AND d.due_at IS NOT NULL

-- name: delivery_tried
-- $3 seconds until the next attempt, NULL when it is over: then it quotes no mail of a mailbox that has gone meanwhile.
UPDATE messages.deliveries d
SET due_at = now() + $3::float8 * interval '1 s', attempts = attempts + 1, success = $4, status_code = $5, response = $6,
    duration = $7, error = $8, data = CASE
        WHEN $3::float8 IS NULL AND d.mailbox_id IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM messages.inboxes i WHERE i.mailbox_id = d.mailbox_id)
        THEN messages.without_quotes(d.data) ELSE d.data
    END
WHERE id = $1 AND fence = $2
RETURNING *

-- name: deliveries_dropped
-- Never to be tried: the webhook is gone, off, or no longer listens. As above it quotes nothing that has gone.
UPDATE messages.deliveries d
SET due_at = NULL, error = $3, data = CASE
        WHEN d.mailbox_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM messages.inboxes i WHERE i.mailbox_id = d.mailbox_id)
        THEN messages.without_quotes(d.data) ELSE d.data
    END
FROM unnest($1::uuid[], $2::int[]) AS held (id, fence)
WHERE d.id = held.id AND d.fence = held.fence

-- name: deliveries_of
SELECT * FROM messages.deliveries WHERE webhook_id = $1 ORDER BY id DESC LIMIT $2

-- name: delivery_one
SELECT * FROM messages.deliveries WHERE id = $1 AND user_id = $2

-- name: delivery_replay
-- Under its old id, so that whoever has it already can tell; from the first attempt on. The fence shuts out whoever is
-- trying it at this moment.
UPDATE messages.deliveries SET due_at = now(), attempts = 0, success = false, fence = fence + 1
WHERE id = $1 AND user_id = $2
RETURNING *

-- name: deliveries_expire
-- Old ones, done or not, a bounded number at a time; ids sort by time.
DELETE FROM messages.deliveries WHERE id IN (
    SELECT id FROM messages.deliveries WHERE id < $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
)
