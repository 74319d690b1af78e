-- Domains: who claimed them, which are proved, and the set that takes mail.

-- name: domains_served
-- One row without a name while nothing has changed since $1, so that the frequent question stays cheap however many there are.
SELECT s.revision, d.name, d.mode, d.user_id, d.is_default, d.method
FROM mailboxes.domain_set s
LEFT JOIN mailboxes.domains d ON s.revision <> $1 AND d.status = 'verified' AND d.is_active
ORDER BY d.created_at, d.id

-- name: domain_insert
INSERT INTO mailboxes.domains
    (id, name, user_id, mode, status, method, verify_token, created_at, created_by, verified_at, last_check_at, mx_records, notes)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)

-- name: domain_proved_by_another
-- A name that was proved is taken; a mere claim takes nothing.
SELECT 1 FROM mailboxes.domains WHERE name = $1 AND status = 'verified'

-- name: domain_by_id
-- Only who proved a domain sees what lives there.
SELECT d.*, CASE WHEN d.status = 'verified'
    THEN (SELECT coalesce(sum(c.living), 0) FROM mailboxes.counters c WHERE c.domain = d.name) ELSE 0 END AS mailbox_count
FROM mailboxes.domains d WHERE d.id = $1

-- name: domain_system
SELECT d.*, 0 AS mailbox_count FROM mailboxes.domains d WHERE d.name = $1 AND d.user_id IS NULL

-- name: domains_of_user
SELECT d.*, CASE WHEN d.status = 'verified'
    THEN (SELECT coalesce(sum(c.living), 0) FROM mailboxes.counters c WHERE c.domain = d.name) ELSE 0 END AS mailbox_count
FROM mailboxes.domains d WHERE d.user_id = $1 ORDER BY d.id LIMIT $2

-- name: domains_of_system
SELECT d.*, CASE WHEN d.status = 'verified'
    THEN (SELECT coalesce(sum(c.living), 0) FROM mailboxes.counters c WHERE c.domain = d.name) ELSE 0 END AS mailbox_count
FROM mailboxes.domains d WHERE d.user_id IS NULL ORDER BY d.is_default DESC, d.id LIMIT $1

-- name: domains_count_of_user
SELECT count(*) AS n FROM mailboxes.domains WHERE user_id = $1

-- name: domain_checked
-- The unique index on proved names decides between two who prove one at the same time.
UPDATE mailboxes.domains
SET status = $2, method = $3, verify_token = $4, verified_at = $5, last_check_at = $6, expires_at = $7, mx_records = $8
WHERE id = $1

-- name: domain_mode
UPDATE mailboxes.domains SET mode = $2 WHERE id = $1

-- name: domain_active
UPDATE mailboxes.domains SET is_active = $2 WHERE id = $1

-- name: domain_default_lock
-- Two who choose a default at once do so in turn; the number is this statement's own.
SELECT pg_catalog.pg_advisory_xact_lock(1684368740)

-- name: domain_no_default
-- First: the index allows no two, not even between two statements.
UPDATE mailboxes.domains SET is_default = false WHERE is_default AND id <> $1

-- name: domain_become_default
UPDATE mailboxes.domains SET is_default = true WHERE id = $1 AND status = 'verified' AND is_active AND user_id IS NULL

-- name: domain_delete
-- Not while mailboxes live there, or aliases of mailboxes elsewhere: who proves the domain next must not find mail led to
-- somebody else. A claim that was never proved has none.
DELETE FROM mailboxes.domains d WHERE d.id = $1 AND NOT (d.status = 'verified' AND (
    (SELECT coalesce(sum(c.living), 0) > 0 FROM mailboxes.counters c WHERE c.domain = d.name)
    OR EXISTS (SELECT 1 FROM mailboxes.addresses a WHERE a.domain = d.name AND a.alias_id IS NOT NULL)
))

-- name: domains_displace
-- What the operator configures is the operator's.
UPDATE mailboxes.domains SET status = 'expired'
WHERE name = ANY($1::text[]) AND user_id IS NOT NULL AND status = 'verified'

-- name: domains_retire
-- No longer configured and never proved: not ours any more until DNS says so.
UPDATE mailboxes.domains SET status = 'pending', is_default = false
WHERE method = 'configuration' AND status = 'verified' AND NOT name = ANY($1::text[])

-- name: domains_configure
INSERT INTO mailboxes.domains AS d (id, name, status, method, verify_token, created_at, verified_at)
SELECT wanted.id, wanted.name, 'verified', 'configuration', wanted.token, $4, $4
FROM unnest($1::uuid[], $2::text[], $3::text[]) AS wanted (id, name, token)
ON CONFLICT (name) WHERE user_id IS NULL DO UPDATE
SET status = 'verified', is_active = true, verified_at = coalesce(d.verified_at, excluded.verified_at),
    method = CASE WHEN d.status = 'verified' THEN d.method ELSE 'configuration' END
WHERE d.status <> 'verified' OR NOT d.is_active

-- name: domains_due
-- Users' domains to be proved again. SKIP LOCKED: several workers share the work without meeting.
UPDATE mailboxes.domains SET last_check_at = $1 WHERE id IN (
    SELECT id FROM mailboxes.domains
    WHERE status = 'verified' AND user_id IS NOT NULL AND last_check_at <= $2
    ORDER BY last_check_at LIMIT $3 FOR UPDATE SKIP LOCKED
)
RETURNING *, 0 AS mailbox_count

-- name: mailboxes_count_of_domain
SELECT coalesce(sum(living), 0)::bigint AS n FROM mailboxes.counters WHERE domain = $1
