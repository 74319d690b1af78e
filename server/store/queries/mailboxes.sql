-- Records of mailboxes: by id, by address, and ending them.

-- name: mailbox_insert
-- The unique index on the address decides a race for one address.
INSERT INTO mailboxes.mailboxes (id, local_part, domain, token_hash, user_id, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)

-- name: mailbox_by_id
SELECT id, local_part, domain, token_hash, user_id, created_at, expires_at FROM mailboxes.mailboxes WHERE id = $1

-- name: mailbox_by_address
SELECT id, local_part, domain, token_hash, user_id, created_at, expires_at
FROM mailboxes.mailboxes WHERE local_part = $1 AND domain = $2

-- name: mailbox_delete
DELETE FROM mailboxes.mailboxes WHERE id = $1

-- name: mailbox_token
UPDATE mailboxes.mailboxes SET token_hash = $2 WHERE id = $1

-- name: mailbox_extend
-- Never shortens: two extensions at once end at the later one.
UPDATE mailboxes.mailboxes SET expires_at = greatest(expires_at, $2) WHERE id = $1
RETURNING id, local_part, domain, token_hash, user_id, created_at, expires_at

-- name: mailboxes_expired
-- The sweep of any worker: SKIP LOCKED lets several sweep at once without meeting.
DELETE FROM mailboxes.mailboxes WHERE id IN (
    SELECT id FROM mailboxes.mailboxes WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
RETURNING id, local_part, domain

-- name: mailbox_expired_at
-- The same for one address: somebody wants it again before the sweep came by.
DELETE FROM mailboxes.mailboxes WHERE local_part = $1 AND domain = $2 AND expires_at <= $3 RETURNING id, local_part, domain
