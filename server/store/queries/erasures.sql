-- Mail of deleted mailboxes, on its way off the disk.

-- name: erasures_take
-- Ours for $2 seconds. now() is the database's: leases hold across hosts.
UPDATE messages.erasures e SET due_at = now() + $2::float8 * interval '1 s'
WHERE mailbox_id IN (
    SELECT mailbox_id FROM messages.erasures WHERE due_at <= now() ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
RETURNING e.mailbox_id, CASE WHEN e.drop_after = 'infinity' THEN e.ended_at ELSE e.drop_after END AS least, e.drop_after AS most

-- name: erasures_done
DELETE FROM messages.erasures WHERE mailbox_id = ANY($1::uuid[])

-- name: deliveries_unquote
-- What is still to be delivered forgets deleted mail half a minute after it came. The nil mailbox marks such deliveries.
UPDATE messages.deliveries SET mailbox_id = NULL, response = NULL, data = messages.without_quotes(data)
WHERE mailbox_id = '00000000-0000-0000-0000-000000000000' AND created_at < now() - interval '30 s'

-- name: leaves_small
-- Those of some partitions that are still there and take no more than $2 bytes.
SELECT name FROM unnest($1::text[]) AS name WHERE pg_catalog.pg_table_size(pg_catalog.to_regclass(name)) <= $2
