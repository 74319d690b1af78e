-- A batch of arriving mail as one value, a row for each mailbox (server/store/letters.py). Of a message's rows the first
-- brings raw; sharers are its mailboxes where there are several.
CREATE TYPE messages.letter AS (
    mailbox_id    uuid,
    place         integer, -- in its mailbox, from the first number the batch is given there
    id_head       text,
    body_id       uuid,
    refs          integer,
    received_at   timestamptz,
    size          integer,
    is_read       boolean,
    sharers       uuid[],
    envelope_from text,
    sender        text,
    subject       text,
    preview       text,
    details       json,
    recipient     text,
    raw           bytea
);
