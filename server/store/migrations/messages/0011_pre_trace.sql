-- Decisions about mail: what became of each connection, sender, recipient and message, for the hours that TRACE_RETENTION says.
-- Hours are dropped whole. The id only orders decisions of one moment.
CREATE TABLE messages.trace (
    at         timestamptz NOT NULL,
    id         bigint NOT NULL,
    rcpt_at    timestamptz,
    address    text NOT NULL,
    stage      text NOT NULL,
    client     text NOT NULL,
    helo       text NOT NULL,
    sender     text NOT NULL,
    recipient  text NOT NULL,
    mailbox_id uuid,
    message_id uuid,
    reply      text NOT NULL,
    node       text NOT NULL,
    unrecorded integer
) PARTITION BY RANGE (at);
CREATE INDEX trace_address ON messages.trace (address, at);
CREATE INDEX trace_at ON messages.trace (at);
