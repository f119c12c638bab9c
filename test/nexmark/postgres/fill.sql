CREATE TABLE person AS SELECT (j->>'id')::bigint AS id, j->>'name' AS name, j->>'emailAddress' AS "emailAddress", j->>'creditCard' AS "creditCard",
    j->>'city' AS city, j->>'state' AS state, (j->>'dateTime')::timestamptz AS "dateTime", j->>'extra' AS extra
FROM raw WHERE (j->>'event_type')::int = 0;
CREATE TABLE auction AS SELECT (j->>'id')::bigint AS id, j->>'itemName' AS "itemName", j->>'description' AS description,
    (j->>'initialBid')::bigint AS "initialBid", (j->>'reserve')::bigint AS reserve, (j->>'dateTime')::timestamptz AS "dateTime",
    (j->>'expires')::timestamptz AS expires, (j->>'seller')::bigint AS seller, (j->>'category')::bigint AS category, j->>'extra' AS extra
FROM raw WHERE (j->>'event_type')::int = 1;
CREATE TABLE bid AS SELECT (j->>'auction')::bigint AS auction, (j->>'bidder')::bigint AS bidder, (j->>'price')::bigint AS price,
    j->>'channel' AS channel, j->>'url' AS url, (j->>'dateTime')::timestamptz AS "dateTime", j->>'extra' AS extra
FROM raw WHERE (j->>'event_type')::int = 2;
CREATE INDEX ON bid (auction);
CREATE INDEX ON bid (bidder);
CREATE INDEX ON auction (seller);
ANALYZE;
