SELECT b.auction, b.bidder, b.price, b."dateTime", b.extra
FROM bid AS b
JOIN (
    SELECT max(price) AS price, date_bin('10 seconds', "dateTime", 'epoch') + INTERVAL '10 seconds' AS closed
    FROM bid GROUP BY 2) AS highest
ON b.price = highest.price
WHERE b."dateTime" BETWEEN highest.closed - INTERVAL '10 seconds' AND highest.closed
