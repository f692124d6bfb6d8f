-- By which postings are marked sent and put off. Apart from the other migrations: whoever writes
-- runs and postings locks them in another order.
CREATE UNIQUE INDEX outbox_sent ON outbox (version);
