-- The auctions with the most bids in the last 10 s, every 2 s.
WITH counts AS (
    SELECT auction, count(*) AS bids, window_start, window_end
    FROM HOP(bid, "dateTime", INTERVAL '2 seconds', INTERVAL '10 seconds')
    GROUP BY auction, window_start, window_end),
most AS (
    SELECT max(bids) AS bids, window_start, window_end
    FROM counts
    GROUP BY window_start, window_end)
SELECT c.auction, c.bids
FROM counts AS c
JOIN most AS m ON c.window_start = m.window_start AND c.window_end = m.window_end AND c.bids >= m.bids
