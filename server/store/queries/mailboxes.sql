-- Records of mailboxes: by id, by address, and ending them.

-- name: mailbox_insert
-- The record and its address in one statement: the primary key of addresses decides a race for one, against aliases too.
-- Who made it is noted ($9) for as long as CREATOR_RETENTION says.
WITH made AS (
    INSERT INTO mailboxes.mailboxes (id, local_part, domain, token_hash, user_id, created_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
), noted AS (
    INSERT INTO mailboxes.creators (mailbox_id, local_part, domain, client, user_id, at)
    SELECT $1, $2, $3, $8::inet, $5, $6 WHERE $9::boolean
)
INSERT INTO mailboxes.addresses (local_part, domain, mailbox_id, created_at) VALUES ($2, $3, $1, $6)

-- name: mailbox_by_id
-- One that is asked for alone. Out of an array of one PostgreSQL would plan it anew each time, which costs three times what
-- the look-up does. There is a row in any case: what is not there must not be heard in the time its answer takes.
SELECT m.id IS NOT NULL AS known, asked.id, coalesce(m.local_part, 'nobody.at.all') AS local_part,
    coalesce(m.domain, 'nowhere') AS domain,
    coalesce(m.token_hash, pg_catalog.decode(pg_catalog.repeat('00', 32), 'hex')) AS token_hash,
    CASE WHEN m.id IS NULL THEN asked.id ELSE m.user_id END AS user_id,
    coalesce(m.created_at, pg_catalog.to_timestamp(0)) AS created_at,
    CASE WHEN m.id IS NULL THEN pg_catalog.to_timestamp(0) ELSE m.expires_at END AS expires_at,
    coalesce(m.disabled, false) AS disabled
FROM (SELECT $1::uuid AS id) asked
LEFT JOIN mailboxes.mailboxes m ON m.id = asked.id

-- name: mailboxes_by_id
-- The same for several, a row for each id, in their order.
SELECT m.id IS NOT NULL AS known, asked.id, coalesce(m.local_part, 'nobody.at.all') AS local_part,
    coalesce(m.domain, 'nowhere') AS domain,
    coalesce(m.token_hash, pg_catalog.decode(pg_catalog.repeat('00', 32), 'hex')) AS token_hash,
    CASE WHEN m.id IS NULL THEN asked.id ELSE m.user_id END AS user_id,
    coalesce(m.created_at, pg_catalog.to_timestamp(0)) AS created_at,
    CASE WHEN m.id IS NULL THEN pg_catalog.to_timestamp(0) ELSE m.expires_at END AS expires_at,
    coalesce(m.disabled, false) AS disabled
FROM unnest($1::uuid[]) WITH ORDINALITY AS asked (id, n)
LEFT JOIN mailboxes.mailboxes m ON m.id = asked.id
ORDER BY asked.n

-- name: mailbox_by_address
-- What RCPT asks: the mailbox an address leads to, be it its own or an alias. One that is switched off leads nowhere.
SELECT m.id, m.local_part, m.domain, m.token_hash, m.user_id, m.created_at, m.expires_at, m.disabled
FROM mailboxes.addresses a
JOIN mailboxes.mailboxes m ON m.id = a.mailbox_id
WHERE a.local_part = $1 AND a.domain = $2 AND a.is_active

-- name: mailboxes_by_address
-- The same for several: n is a row's place among what was asked.
SELECT asked.n, m.id, m.local_part, m.domain, m.token_hash, m.user_id, m.created_at, m.expires_at, m.disabled
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (local_part, domain, n)
JOIN mailboxes.addresses a ON a.local_part = asked.local_part AND a.domain = asked.domain AND a.is_active
JOIN mailboxes.mailboxes m ON m.id = a.mailbox_id

-- name: mailboxes_own
SELECT id, local_part, domain, token_hash, user_id, created_at, expires_at, disabled
FROM mailboxes.mailboxes
WHERE user_id = $1 AND (expires_at IS NULL OR expires_at > $2) AND ($4::uuid IS NULL OR id < $4)
ORDER BY id DESC LIMIT $3

-- name: mailboxes_own_count
SELECT count(*) FROM mailboxes.mailboxes WHERE user_id = $1 AND (expires_at IS NULL OR expires_at > $2)

-- name: mailboxes_own_lock
-- One user's mailboxes are made one at a time: of two that see the last free place one must wait and see it taken.
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1::uuid::text, 0))

-- name: mailbox_addresses
SELECT local_part, domain FROM mailboxes.addresses WHERE mailbox_id = $1

-- name: mailbox_of_address
SELECT mailbox_id FROM mailboxes.addresses WHERE local_part = $1 AND domain = $2

-- name: mailbox_delete
DELETE FROM mailboxes.mailboxes WHERE id = $1

-- name: mailbox_token
UPDATE mailboxes.mailboxes SET token_hash = $2 WHERE id = $1

-- name: mailbox_extend
-- Never shortens: two extensions at once end at the later one.
UPDATE mailboxes.mailboxes SET expires_at = greatest(expires_at, $2) WHERE id = $1
RETURNING id, local_part, domain, token_hash, user_id, created_at, expires_at, disabled

-- name: mailboxes_expired
-- The sweep of any worker: SKIP LOCKED lets several sweep at once without meeting. The addresses go by cascade, which acts
-- after the statement: its own snapshot still shows them.
WITH over AS (
    DELETE FROM mailboxes.mailboxes WHERE id IN (
        SELECT id FROM mailboxes.mailboxes WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    RETURNING id
)
SELECT over.id, a.local_part, a.domain FROM over JOIN mailboxes.addresses a ON a.mailbox_id = over.id
ORDER BY a.alias_id NULLS FIRST

-- name: mailbox_expired_at
-- The same for whichever mailbox has one address: somebody wants it before the sweep came by.
WITH over AS (
    DELETE FROM mailboxes.mailboxes m USING mailboxes.addresses a
    WHERE a.local_part = $1 AND a.domain = $2 AND m.id = a.mailbox_id AND m.expires_at <= $3
    RETURNING m.id
)
SELECT over.id, a.local_part, a.domain FROM over JOIN mailboxes.addresses a ON a.mailbox_id = over.id
ORDER BY a.alias_id NULLS FIRST
