-- Per auction and day: bids, in all and in three ranges of prices, and the prices' range, mean (a whole number) and sum.
SELECT auction, to_char("dateTime", 'YYYY-MM-DD') AS dt,
    count(*) AS bids,
    count(*) FILTER (WHERE price < 10000) AS bids1,
    count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS bids2,
    count(*) FILTER (WHERE price >= 1000000) AS bids3,
    min(price) AS lowest, max(price) AS highest, trunc(avg(price)) AS average, sum(price) AS total
FROM bid
GROUP BY auction, to_char("dateTime", 'YYYY-MM-DD')
