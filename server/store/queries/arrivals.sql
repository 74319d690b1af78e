-- Mail that came through the queue, known by its id.

-- name: arrivals_claim
-- Answers the ids that were not there: theirs is the mail to store. In one order, so that two workers cannot deadlock.
INSERT INTO messages.arrivals (slot, id)
SELECT a.slot, a.id FROM unnest($1::smallint[], $2::uuid[]) AS a (slot, id) ORDER BY a.id
ON CONFLICT DO NOTHING RETURNING id

-- name: arrivals_any
SELECT EXISTS (SELECT 1 FROM messages.arrivals WHERE slot = $1)
