-- Webhooks, in the domain of users.

-- name: webhooks_lock
-- Changes of one user's webhooks go one after the other, also those of webhooks that are not there yet: so the cap holds, and
-- the copy in the domain of messages is never narrowed under somebody who is widening it. 1,466,461,003 is this lock's kind.
SELECT pg_advisory_xact_lock(1466461003, hashtext($1::text))

-- name: webhooks_of_user
SELECT w.*, w.is_active AND u.is_active AS is_live
FROM users.webhooks w JOIN users.users u ON u.id = w.user_id
WHERE w.user_id = $1 ORDER BY w.id

-- name: webhook_one
SELECT w.*, w.is_active AND u.is_active AS is_live
FROM users.webhooks w JOIN users.users u ON u.id = w.user_id
WHERE w.id = $1 AND w.user_id = $2

-- name: webhooks_named
-- Asked before every sending: what was deleted, switched off or redirected a moment ago is obeyed.
SELECT w.*, w.is_active AND u.is_active AS is_live
FROM users.webhooks w JOIN users.users u ON u.id = w.user_id
WHERE w.id = ANY($1::uuid[])

-- name: webhook_insert
INSERT INTO users.webhooks (id, user_id, url, events, secret, description, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $7)

-- name: webhook_update
UPDATE users.webhooks SET url = $3, events = $4, is_active = $5, description = $6, secret = $7, updated_at = $8
WHERE id = $1 AND user_id = $2

-- name: webhook_disable
UPDATE users.webhooks SET is_active = false, last_error = $3, updated_at = now() WHERE id = $1 AND user_id = $2

-- name: webhook_delete
DELETE FROM users.webhooks WHERE id = $1 AND user_id = $2

-- name: webhook_succeeded
-- At most once a second while all goes well: a busy webhook must not rewrite one row for each of its deliveries.
UPDATE users.webhooks SET retry_count = 0, last_error = NULL, last_success = now()
WHERE id = $1 AND (retry_count > 0 OR last_error IS NOT NULL OR last_success IS NULL OR last_success < now() - interval '1 s')

-- name: webhook_failed
UPDATE users.webhooks SET retry_count = retry_count + 1, last_error = $2 WHERE id = $1
