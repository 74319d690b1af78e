-- Ids of mail that came through the queue, written in the transaction that stores it: what the broker hands out once more
-- after a crash is not stored once more. A slot is the hour in which the id was made, modulo 32, so that a slot that is over
-- is emptied with TRUNCATE, and the key is unique although the table is partitioned: an id tells its slot.
CREATE TABLE messages.arrivals (
    slot smallint NOT NULL,
    id   uuid NOT NULL,
    PRIMARY KEY (slot, id)
) PARTITION BY LIST (slot);
DO $$
BEGIN
    FOR slot IN 0..31 LOOP
        EXECUTE format('CREATE TABLE messages.arrivals_%s PARTITION OF messages.arrivals FOR VALUES IN (%s)', slot, slot);
    END LOOP;
END
$$;
