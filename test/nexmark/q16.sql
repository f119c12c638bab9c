-- Per channel and day: the last minute with a bid, and q15's figures.
SELECT channel, to_char("dateTime", 'YYYY-MM-DD') AS dt, max(to_char("dateTime", 'HH24:MI')) AS hm,
    count(*) AS bids,
    count(*) FILTER (WHERE price < 10000) AS bids1,
    count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS bids2,
    count(*) FILTER (WHERE price >= 1000000) AS bids3,
    count(DISTINCT bidder) AS bidders,
    count(DISTINCT bidder) FILTER (WHERE price < 10000) AS bidders1,
    count(DISTINCT bidder) FILTER (WHERE price >= 10000 AND price < 1000000) AS bidders2,
    count(DISTINCT bidder) FILTER (WHERE price >= 1000000) AS bidders3,
    count(DISTINCT auction) AS auctions,
    count(DISTINCT auction) FILTER (WHERE price < 10000) AS auctions1,
    count(DISTINCT auction) FILTER (WHERE price >= 10000 AND price < 1000000) AS auctions2,
    count(DISTINCT auction) FILTER (WHERE price >= 1000000) AS auctions3
FROM bid
GROUP BY channel, to_char("dateTime", 'YYYY-MM-DD')
