-- Per seller and auction that closed, the average (a whole number) of the highest bids of the seller's last ten auctions.
SELECT seller, closed, id, trunc(avg(price) OVER (PARTITION BY seller ORDER BY closed, id ROWS BETWEEN 9 PRECEDING AND CURRENT ROW)) AS price
FROM (
    SELECT a.id, a.seller, a.expires AS closed, max(b.price) AS price
    FROM auction AS a
    JOIN bid AS b ON b.auction = a.id AND b."dateTime" BETWEEN a."dateTime" AND a.expires
    GROUP BY a.id, a.seller, a.expires) AS closing
