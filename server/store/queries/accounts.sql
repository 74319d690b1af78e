-- People: their records, logins and API keys.

-- name: user_insert
-- The unique indexes on lower(email) and lower(username) decide a race for one name.
INSERT INTO users.users (id, email, username, password_hash, tier, role, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $7)

-- name: user_by_id
SELECT u.id, u.email, u.username, u.tier, u.role, u.is_active, u.is_email_verified, u.created_at, u.updated_at,
    u.last_login_at, q.max_mailboxes, q.max_messages, q.max_requests_per_minute, q.max_concurrent
FROM users.users u LEFT JOIN users.quotas q ON q.user_id = u.id
WHERE u.id = $1

-- name: user_by_name
-- An email holds an @ and a username never does, so at most one of the two indexes finds a row.
SELECT u.id, u.email, u.username, u.tier, u.role, u.is_active, u.is_email_verified, u.created_at, u.updated_at,
    u.last_login_at, q.max_mailboxes, q.max_messages, q.max_requests_per_minute, q.max_concurrent, u.password_hash
FROM users.users u LEFT JOIN users.quotas q ON q.user_id = u.id
WHERE lower(u.email) = $1 OR lower(u.username) = $1

-- name: user_logged_in
-- $3 is the network's digest, null for a client that is exempt; one that came within the day is not written again.
WITH seen AS (
    INSERT INTO users.login_networks AS n (user_id, network, last_at) SELECT $1, $3, $2 WHERE $3::bytea IS NOT NULL
    ON CONFLICT (user_id, network) DO UPDATE SET last_at = $2 WHERE n.last_at < $2 - interval '1 day'
), forgotten AS (
    DELETE FROM users.login_networks WHERE user_id = $1 AND network NOT IN (
        SELECT network FROM users.login_networks WHERE user_id = $1 ORDER BY last_at DESC LIMIT 20
    )
)
UPDATE users.users SET last_login_at = $2 WHERE id = $1

-- name: network_known
SELECT EXISTS (SELECT FROM users.login_networks WHERE user_id = $1 AND network = $2)

-- name: user_set_password
UPDATE users.users SET password_hash = $2, updated_at = $3 WHERE id = $1

-- name: user_rehash
-- The same password under newer parameters, unless it was changed meanwhile.
UPDATE users.users SET password_hash = $3 WHERE id = $1 AND password_hash = $2

-- name: user_set_role
UPDATE users.users SET role = $2, is_active = true, updated_at = $3 WHERE id = $1

-- name: session_insert
INSERT INTO users.sessions (id, user_id, refresh_hash, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)

-- name: sessions_trim
-- A login clears away the account's sessions that are over, and the oldest beyond the newest $3.
DELETE FROM users.sessions WHERE user_id = $1 AND (expires_at <= $2 OR id NOT IN (
    SELECT id FROM users.sessions WHERE user_id = $1 ORDER BY id DESC LIMIT $3
))

-- name: session_rotate
-- Of two that present the same refresh token one finds its hash replaced: that one is the reuse.
UPDATE users.sessions SET refresh_hash = $4, expires_at = $5
WHERE id = $1 AND user_id = $2 AND refresh_hash = $3 AND expires_at > $6

-- name: session_delete
DELETE FROM users.sessions WHERE id = $1 AND user_id = $2

-- name: sessions_delete
DELETE FROM users.sessions WHERE user_id = $1

-- name: session_user
-- The account behind an access token, if its session stands.
SELECT u.id, u.email, u.username, u.tier, u.role, u.is_active, u.is_email_verified, u.created_at, u.updated_at,
    u.last_login_at, q.max_mailboxes, q.max_messages, q.max_requests_per_minute, q.max_concurrent
FROM users.sessions s JOIN users.users u ON u.id = s.user_id LEFT JOIN users.quotas q ON q.user_id = u.id
WHERE s.id = $1 AND s.user_id = $2 AND u.is_active

-- name: api_key_insert
-- The account's row is locked by the caller, so that two at once cannot both take the last place.
INSERT INTO users.api_keys (id, user_id, name, hash, shown, scopes, created_at, expires_at)
SELECT $1, $2, $3, $4, $5, $6, $7, $8
WHERE (SELECT count(*) FROM users.api_keys WHERE user_id = $2) < $9

-- name: user_lock
SELECT id FROM users.users WHERE id = $1 FOR UPDATE

-- name: api_keys_of
SELECT id, user_id, name, shown, scopes, created_at, expires_at, last_used_at
FROM users.api_keys WHERE user_id = $1 ORDER BY id DESC

-- name: api_key_one
SELECT id, user_id, name, shown, scopes, created_at, expires_at, last_used_at
FROM users.api_keys WHERE id = $1 AND user_id = $2

-- name: api_key_delete
DELETE FROM users.api_keys WHERE id = $1 AND user_id = $2

-- name: api_key_owner
-- Whose key it is never changes; what is kept of the account hangs on the account's generation, so this is asked first.
SELECT user_id FROM users.api_keys WHERE hash = $1

-- name: api_key_user
-- The account behind a key, if both hold.
SELECT k.id AS key_id, k.scopes, k.expires_at AS key_expires_at,
    u.id, u.email, u.username, u.tier, u.role, u.is_active, u.is_email_verified, u.created_at, u.updated_at,
    u.last_login_at, q.max_mailboxes, q.max_messages, q.max_requests_per_minute, q.max_concurrent
FROM users.api_keys k JOIN users.users u ON u.id = k.user_id LEFT JOIN users.quotas q ON q.user_id = u.id
WHERE k.hash = $1 AND u.is_active

-- name: api_keys_used
-- Once a minute for all keys a worker saw; workers pass each other in any order, so time only goes forward. The rows are
-- locked in the order of their ids, so that two workers cannot deadlock.
UPDATE users.api_keys k SET last_used_at = greatest(k.last_used_at, used.at)
FROM (
    SELECT locked.id, wanted.at
    FROM users.api_keys locked JOIN unnest($1::uuid[], $2::timestamptz[]) AS wanted (id, at) USING (id)
    ORDER BY locked.id FOR UPDATE OF locked
) AS used
WHERE k.id = used.id
