-- What administrators do and see: people, their quotas, the audit trail, settings, figures.

-- name: admin_users
-- Newest first (ids sort by time). NULL leaves a condition out; the pattern is escaped by the caller.
SELECT count(*) OVER () AS found, u.id, u.email, u.username, u.tier, u.role, u.is_active, u.is_email_verified, u.created_at,
    u.updated_at, u.last_login_at, q.max_mailboxes, q.max_messages, q.max_requests_per_minute, q.max_concurrent
FROM users.users u LEFT JOIN users.quotas q ON q.user_id = u.id
WHERE ($1::text IS NULL OR u.email ILIKE $1 OR u.username ILIKE $1)
    AND ($2::text IS NULL OR u.role = $2)
    AND ($3::text IS NULL OR u.tier = $3)
    AND ($4::boolean IS NULL OR u.is_active = $4)
ORDER BY u.id DESC LIMIT $5 OFFSET $6

-- name: admin_super_lock
-- The super users that can act, locked in the order of their ids: of two who would remove each other the second finds itself
-- the last.
SELECT id FROM users.users WHERE role = 'super' AND is_active ORDER BY id FOR UPDATE

-- name: admin_user_lock
SELECT u.id, u.email, u.username, u.tier, u.role, u.is_active, u.is_email_verified, u.created_at, u.updated_at,
    u.last_login_at, q.max_mailboxes, q.max_messages, q.max_requests_per_minute, q.max_concurrent
FROM users.users u LEFT JOIN users.quotas q ON q.user_id = u.id
WHERE u.id = $1 FOR UPDATE OF u

-- name: admin_user_set
UPDATE users.users SET tier = $2, role = $3, is_active = $4, is_email_verified = $5, updated_at = $6 WHERE id = $1

-- name: admin_quota_set
INSERT INTO users.quotas (user_id, max_mailboxes, max_messages, max_requests_per_minute, max_concurrent)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (user_id) DO UPDATE SET (max_mailboxes, max_messages, max_requests_per_minute, max_concurrent)
    = (excluded.max_mailboxes, excluded.max_messages, excluded.max_requests_per_minute, excluded.max_concurrent)

-- name: admin_user_delete
-- Logins, keys, quota, tags and webhooks go along; what lies in other domains goes by users.departures.
DELETE FROM users.users WHERE id = $1

-- name: departure_insert
INSERT INTO users.departures (user_id, departed_at, due_at) VALUES ($1, $2, $2)

-- name: departure_take
-- The one that waited longest, for one worker at a time.
UPDATE users.departures SET due_at = $2 WHERE user_id = (
    SELECT user_id FROM users.departures WHERE due_at <= $1 ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING user_id, departed_at

-- name: departure_delete
DELETE FROM users.departures WHERE user_id = $1

-- name: mailboxes_of_user
SELECT a.mailbox_id, a.local_part, a.domain
FROM mailboxes.addresses a
WHERE a.mailbox_id IN (SELECT id FROM mailboxes.mailboxes WHERE user_id = $1 ORDER BY id LIMIT $2)

-- name: mailboxes_delete
DELETE FROM mailboxes.mailboxes WHERE id = ANY($1::uuid[])

-- name: domains_delete_of_user
DELETE FROM mailboxes.domains WHERE user_id = $1

-- name: listeners_delete_of_user
DELETE FROM messages.listeners WHERE user_id = $1

-- name: deliveries_delete_of_user
DELETE FROM messages.deliveries WHERE user_id = $1

-- name: audit_insert
INSERT INTO users.audit (id, at, actor_id, actor, client, action, target, before, after)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: audit_page
SELECT id, at, actor_id, actor, client, action, target, before, after FROM users.audit ORDER BY id DESC LIMIT $1 OFFSET $2

-- name: audit_count
SELECT count(*) AS n FROM users.audit

-- name: acts_newest
SELECT id FROM users.audit ORDER BY id DESC LIMIT 1

-- name: settings_read
-- With the bans in force, whatever clock a worker has.
SELECT overrides, updated_at, updated_by, (
    SELECT coalesce(json_agg(json_build_object('id', id, 'kind', kind, 'value', value, 'reason', reason, 'created_at',
        created_at, 'created_by', created_by, 'expires_at', expires_at)), '[]')
    FROM users.bans WHERE expires_at IS NULL OR expires_at > now()
) AS bans
FROM users.settings

-- name: settings_lock
SELECT overrides, updated_at, updated_by FROM users.settings FOR UPDATE

-- name: settings_write
UPDATE users.settings SET overrides = $1, updated_at = $2, updated_by = $3

-- name: accounts_counted
SELECT tier, role, is_active, accounts FROM users.counters

-- name: mailboxes_counted
-- At most 1,000 domains, those with the most mailboxes first; the sums are of all.
SELECT domain, sum(living)::bigint AS living, sum(sum(made)) OVER ()::bigint AS made_in_all,
    sum(sum(living)) OVER ()::bigint AS living_in_all
FROM mailboxes.counters GROUP BY domain ORDER BY living DESC, domain LIMIT 1000

-- name: messages_counted
SELECT sum(received)::bigint AS received, sum(today) FILTER (WHERE day = $1)::bigint AS today FROM messages.counters
