-- Aliases: the addresses of a mailbox beside its own.

-- name: alias_owner_lock
-- Whoever adds an alias to a mailbox does so alone, so that counting them means something.
SELECT id FROM mailboxes.mailboxes WHERE id = $1 FOR NO KEY UPDATE

-- name: alias_count
SELECT count(*) AS n FROM mailboxes.addresses WHERE mailbox_id = $1 AND alias_id IS NOT NULL

-- name: alias_insert
-- The primary key over all addresses decides a race for one, against mailboxes too.
INSERT INTO mailboxes.addresses (local_part, domain, mailbox_id, alias_id, created_at) VALUES ($1, $2, $3, $4, $5)

-- name: aliases_of_mailbox
SELECT alias_id, mailbox_id, local_part, domain, is_active, created_at FROM mailboxes.addresses
WHERE mailbox_id = $1 AND alias_id IS NOT NULL ORDER BY alias_id

-- name: alias_one
SELECT alias_id, mailbox_id, local_part, domain, is_active, created_at FROM mailboxes.addresses
WHERE mailbox_id = $1 AND alias_id = $2

-- name: alias_switch
UPDATE mailboxes.addresses SET is_active = $3 WHERE mailbox_id = $1 AND alias_id = $2
RETURNING alias_id, mailbox_id, local_part, domain, is_active, created_at

-- name: alias_delete
DELETE FROM mailboxes.addresses WHERE mailbox_id = $1 AND alias_id = $2
