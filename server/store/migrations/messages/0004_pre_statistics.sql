-- How many messages were received, in all and on the last day of each row (UTC). A batch counts itself in where it takes its
-- numbers; each connection of the server has its row, so that commits rarely wait for one another.
CREATE TABLE messages.counters (
    shard    integer PRIMARY KEY,
    received bigint NOT NULL DEFAULT 0,
    day      date NOT NULL DEFAULT '-infinity',
    today    bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 25); -- room for many updates a second to stay on the page (HOT)
INSERT INTO messages.counters (shard) SELECT generate_series(0, 255);
-- What was received before this counter was there, as far as it still shows.
UPDATE messages.counters SET received = (SELECT coalesce(sum(next_seq - 1), 0) FROM messages.inboxes) WHERE shard = 0;
