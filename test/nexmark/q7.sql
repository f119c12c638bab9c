-- The highest bids of each 10 s (a bid at a window's very end counts for it too, as in Nexmark).
SELECT b.auction, b.bidder, b.price, b."dateTime", b.extra
FROM bid AS b
JOIN (
    SELECT max(price) AS price, window_end AS closed
    FROM TUMBLE(bid, "dateTime", INTERVAL '10 seconds')
    GROUP BY window_start, window_end) AS highest
ON b.price = highest.price
WHERE b."dateTime" BETWEEN highest.closed - INTERVAL '10 seconds' AND highest.closed
