WITH counts AS (
    SELECT auction, count(*) AS bids, k
    FROM bid, LATERAL generate_series(0, 4) AS i, LATERAL (SELECT floor(extract(epoch FROM "dateTime") / 2) - i AS k) AS w
    GROUP BY auction, k),
most AS (SELECT max(bids) AS bids, k FROM counts GROUP BY k)
SELECT c.auction, c.bids FROM counts AS c JOIN most AS m ON c.k = m.k AND c.bids >= m.bids
