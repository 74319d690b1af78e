-- Bans: who and what is not let in. Workers read them with the settings (settings_read).

-- name: bans_over
DELETE FROM users.bans WHERE expires_at <= now()

-- name: bans_count
SELECT count(*) FROM users.bans

-- name: ban_insert
INSERT INTO users.bans (id, kind, value, reason, created_at, created_by, expires_at)
VALUES ($1, $2, $3, $4, now(), $5, now() + $6::interval)
RETURNING id, kind, value, reason, created_at, created_by, expires_at

-- name: ban_delete
DELETE FROM users.bans WHERE id = $1
RETURNING id, kind, value, reason, created_at, created_by, expires_at

-- name: ban_of_value
SELECT id FROM users.bans WHERE kind = $1 AND value = $2

-- name: bans_page
SELECT count(*) OVER () AS found, id, kind, value, reason, created_at, created_by, expires_at
FROM users.bans
WHERE (expires_at IS NULL OR expires_at > now()) AND ($1::text IS NULL OR kind = $1)
ORDER BY id DESC LIMIT $2 OFFSET $3
