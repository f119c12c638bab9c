-- Each bidder's last bid on each auction (any of those at the same millisecond).
-- compare SELECT auction, bidder, "dateTime" FROM q18
SELECT auction, bidder, price, channel, url, "dateTime", extra
FROM (
    SELECT *, row_number() OVER (PARTITION BY bidder, auction ORDER BY "dateTime" DESC) AS place
    FROM bid) AS ranked
WHERE place <= 1
