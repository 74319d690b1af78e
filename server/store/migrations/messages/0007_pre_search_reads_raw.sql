-- Search reads the message as it came: its text is not kept a second time. Rows of before keep theirs, which nobody reads any
-- more, until their partition goes.
ALTER TABLE messages.bodies ALTER COLUMN text DROP NOT NULL;
