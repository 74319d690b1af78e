-- Mail of all of a user's mailboxes.

-- name: inboxes_of_user
-- Whose they are stands in the inboxes since they were made; one that is over or was deleted is none.
SELECT mailbox_id, drop_after, total FROM messages.inboxes
WHERE user_id = $1 AND drop_after > $2 AND total > 0
ORDER BY last_activity DESC NULLS LAST LIMIT $3

-- name: messages_across
-- $3 and $4 are the first and last of the ends $2, which prune when the plan is made; each inbox's own end prunes while it runs.
-- Ids sort by time, as seq does within a mailbox; $6 is the last one seen. The conditions ($7 to $15), `misses` and `raw` are
-- those of `search`.
SELECT found.*, CASE WHEN cardinality($14::text[]) > 0 AND cardinality(found.misses) > 0 THEN (
    SELECT substr(b.raw, 1, 400000) FROM messages.bodies b
    WHERE b.id = found.body_id AND b.drop_after = found.body_drop_after AND b.drop_after >= $3 LIMIT 1
) END AS raw
FROM (
    SELECT m.*, CASE WHEN cardinality($14::text[]) > 0 THEN ARRAY(
        SELECT term.nth FROM unnest($14::text[], $15::boolean[]) WITH ORDINALITY AS term (value, negated, nth)
        WHERE NOT (lower(m.subject) LIKE term.value OR lower(m.sender) LIKE term.value OR lower(m.recipient) LIKE term.value)
    ) END AS misses
    FROM unnest($1::uuid[], $2::timestamptz[]) AS i (mailbox_id, drop_after)
    CROSS JOIN LATERAL (
        SELECT m.mailbox_id, m.seq, m.id, m.received_at, m.body_id, m.body_drop_after, m.size, m.is_read, m.envelope_from,
            m.sender, m.recipient, m.subject, m.preview, m.details
        FROM messages.messages m
        WHERE m.mailbox_id = i.mailbox_id AND m.drop_after BETWEEN $3 AND $4 AND m.drop_after <= i.drop_after
            AND m.drop_after >= CASE WHEN i.drop_after = 'infinity' THEN $5::timestamptz ELSE i.drop_after END
            AND m.id < $6
            AND ($7::timestamptz IS NULL OR m.received_at >= $7)
            AND ($8::timestamptz IS NULL OR m.received_at < $8)
            AND ($9::bigint IS NULL OR m.size >= $9)
            AND ($10::bigint IS NULL OR m.size <= $10)
            AND (cardinality($11::text[]) = 0 OR NOT EXISTS (
                SELECT 1 FROM unnest($11::text[], $12::text[], $13::boolean[]) AS term (kind, value, negated)
                WHERE term.negated = CASE term.kind
                    WHEN 'from' THEN messages.folded(m.sender) LIKE term.value OR messages.folded(m.envelope_from) LIKE term.value
                    WHEN 'to' THEN messages.folded(m.recipient) LIKE term.value
                        OR messages.folded(coalesce(m.details ->> 'cc', '')) LIKE term.value
                    WHEN 'subject' THEN messages.folded(m.subject) LIKE term.value
                    WHEN 'attachment' THEN EXISTS (
                        SELECT 1 FROM json_array_elements(m.details -> 'attachments') AS one
                        WHERE one ->> 'inline' IS DISTINCT FROM 'true'
                    )
                    WHEN 'read' THEN m.is_read
                    WHEN 'dmarc' THEN coalesce(m.details ->> 'dmarc', 'none') = term.value
                    WHEN 'tag' THEN EXISTS (
                        SELECT 1 FROM messages.message_tags t
                        WHERE t.tag_id = term.value::uuid AND t.message_id = m.id AND t.drop_after = m.drop_after
                            AND t.received_at = m.received_at
                    )
                END
            ))
            AND (cardinality($14::text[]) = 0 OR NOT EXISTS (
                SELECT 1 FROM unnest($14::text[], $15::boolean[]) AS term (value, negated)
                WHERE term.negated AND (lower(m.subject) LIKE term.value OR lower(m.sender) LIKE term.value OR lower(m.recipient) LIKE term.value)
            ))
        ORDER BY m.seq DESC LIMIT $16
    ) m
    ORDER BY m.id DESC LIMIT $16
) found
ORDER BY found.id DESC
