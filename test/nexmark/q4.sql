-- Per category, the average (a whole number) of its auctions' highest bids while they were open.
WITH closing AS (
    SELECT a.id, a.category, max(b.price) AS price
    FROM auction AS a
    JOIN bid AS b ON b.auction = a.id AND b."dateTime" BETWEEN a."dateTime" AND a.expires
    GROUP BY a.id, a.category)
SELECT category, trunc(avg(price)) AS price FROM closing GROUP BY category
