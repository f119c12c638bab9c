SELECT bidder, count(*) AS bids, min("dateTime") AS started, max("dateTime") + INTERVAL '10 seconds' AS ended
FROM (
    SELECT *, sum(first) OVER (PARTITION BY bidder ORDER BY "dateTime" RANGE UNBOUNDED PRECEDING) AS session
    FROM (
        SELECT bidder, "dateTime", CASE WHEN "dateTime" - lag("dateTime") OVER (PARTITION BY bidder ORDER BY "dateTime") < INTERVAL '10 seconds' THEN 0 ELSE 1 END AS first
        FROM bid) AS x) AS y
GROUP BY bidder, session
