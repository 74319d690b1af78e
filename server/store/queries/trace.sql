-- Decisions about mail (server/store/trace.py).

-- name: trace_clock
SELECT clock_timestamp()

-- name: trace_write
INSERT INTO messages.trace (at, id, rcpt_at, address, stage, client, helo, sender, recipient, mailbox_id, message_id, reply,
    node, unrecorded)
SELECT to_timestamp(at), id, to_timestamp(rcpt_at), address, stage, client, helo, sender, recipient, mailbox_id::uuid,
    message_id::uuid, reply, $1, unrecorded
FROM unnest($2::float8[], $3::bigint[], $4::float8[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
    $11::text[], $12::text[], $13::text[], $14::integer[])
    AS noted (at, id, rcpt_at, address, stage, client, helo, sender, recipient, mailbox_id, message_id, reply, unrecorded)

-- name: trace_all
-- Of the whole installation, newest first. A row of a message's end stands for the acceptance of its recipient too.
-- Of one sender ($7), or of all senders of a domain and below it: the rows of that time are read, no index has senders.
SELECT at, id, rcpt_at, stage, client, helo, sender, recipient, message_id, reply, node, unrecorded
FROM messages.trace
WHERE at >= $1 AND at < $2 AND ($3::timestamptz IS NULL OR (at, id) < ($3, $4))
    AND ($5::text IS NULL OR reply LIKE $5 OR ($5 = '2%' AND rcpt_at IS NOT NULL))
    AND ($7::text IS NULL OR lower(sender) = $7
        OR position('@' IN $7) = 0 AND right(lower(sender), length($7) + 1) IN ('@' || $7, '.' || $7))
ORDER BY at DESC, id DESC LIMIT $6

-- name: trace_of_address
-- Of one address ($8), under any of the mailboxes that it may mean ($9); ``sender`` as above.
SELECT at, id, rcpt_at, stage, client, helo, sender, recipient, message_id, reply, node, unrecorded
FROM messages.trace
WHERE at >= $1 AND at < $2 AND ($3::timestamptz IS NULL OR (at, id) < ($3, $4))
    AND ($5::text IS NULL OR reply LIKE $5 OR ($5 = '2%' AND rcpt_at IS NOT NULL))
    AND ($7::text IS NULL OR lower(sender) = $7
        OR position('@' IN $7) = 0 AND right(lower(sender), length($7) + 1) IN ('@' || $7, '.' || $7))
    AND address = ANY($9::text[]) AND (address = $8 OR recipient = $8)
ORDER BY at DESC, id DESC LIMIT $6

-- name: trace_of_mailbox
-- What became of mail to a mailbox ($5) at its addresses ($6), each since it was the mailbox's ($7). What led to another
-- mailbox is another owner's; a decision without a recipient is about no address.
SELECT t.at, t.id, t.rcpt_at, t.stage, t.client, t.helo, t.sender, t.recipient, t.message_id, t.reply, t.node, t.unrecorded
FROM unnest($6::text[], $7::timestamptz[]) AS own (address, since)
JOIN messages.trace t ON t.address = own.address AND t.at >= own.since AND t.at >= $1
WHERE t.at < $2 AND ($3::timestamptz IS NULL OR (t.at, t.id) < ($3, $4)) AND t.recipient <> ''
    AND (t.mailbox_id IS NULL OR t.mailbox_id = $5)
ORDER BY t.at DESC, t.id DESC LIMIT $8

-- name: trace_unrecorded
SELECT coalesce(sum(unrecorded), 0)::bigint AS n FROM messages.trace WHERE address = '' AND unrecorded IS NOT NULL AND at >= $1 AND at < $2

-- name: trace_hours
-- Every table of an hour, the newest first: attached, or with a detach that a crash left half done; and its bytes on disk.
SELECT c.relname, coalesce(pg_total_relation_size(c.oid), 0) AS bytes, i.inhrelid IS NOT NULL AS attached, coalesce(i.inhdetachpending, false) AS pending
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
WHERE n.nspname = 'messages' AND c.relkind = 'r' AND c.relname ~ '^trace_[0-9]{10}$'
ORDER BY c.relname DESC
