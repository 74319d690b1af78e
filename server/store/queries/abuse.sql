-- What administrators see of mailboxes, and do to them: facts, never mail.

-- name: admin_mailboxes
-- The living, newest first. NULL leaves a condition out: part of an address, a whole address (local part, domain), owner,
-- network, whether disabled.
SELECT count(*) OVER () AS found, m.id, m.local_part, m.domain, m.user_id, m.created_at, m.expires_at, m.disabled,
    host(c.client) AS client, false AS gone
FROM mailboxes.mailboxes m LEFT JOIN mailboxes.creators c ON c.mailbox_id = m.id
WHERE ($1::text IS NULL OR EXISTS (
        SELECT 1 FROM mailboxes.addresses a WHERE a.mailbox_id = m.id AND a.local_part || '@' || a.domain LIKE $1))
    AND ($2::text IS NULL OR m.id IN (SELECT a.mailbox_id FROM mailboxes.addresses a WHERE a.local_part = $2 AND a.domain = $3))
    AND ($4::uuid IS NULL OR m.user_id = $4)
    AND ($5::inet IS NULL OR c.client <<= $5)
    AND ($6::boolean IS NULL OR m.disabled = $6)
ORDER BY m.id DESC LIMIT $7 OFFSET $8

-- name: admin_mailboxes_gone
-- Those that are gone and whose makers are still known.
SELECT count(*) OVER () AS found, c.mailbox_id AS id, c.local_part, c.domain, c.user_id, c.at AS created_at,
    NULL::timestamptz AS expires_at, false AS disabled, host(c.client) AS client, true AS gone
FROM mailboxes.creators c
WHERE NOT EXISTS (SELECT 1 FROM mailboxes.mailboxes m WHERE m.id = c.mailbox_id)
    AND ($1::text IS NULL OR c.local_part || '@' || c.domain LIKE $1)
    AND ($2::text IS NULL OR (c.local_part = $2 AND c.domain = $3))
    AND ($4::uuid IS NULL OR c.user_id = $4)
    AND ($5::inet IS NULL OR c.client <<= $5)
ORDER BY c.mailbox_id DESC LIMIT $6 OFFSET $7

-- name: admin_mailbox
SELECT m.id, m.local_part, m.domain, m.user_id, m.created_at, m.expires_at, m.disabled, host(c.client) AS client, false AS gone
FROM mailboxes.mailboxes m LEFT JOIN mailboxes.creators c ON c.mailbox_id = m.id
WHERE m.id = $1

-- name: mailbox_disable
UPDATE mailboxes.mailboxes SET disabled = $2 WHERE id = $1

-- name: creators_forget
-- By the database's clock, some at a time.
DELETE FROM mailboxes.creators WHERE mailbox_id IN (
    SELECT mailbox_id FROM mailboxes.creators WHERE at < now() - $1::interval LIMIT $2
)
