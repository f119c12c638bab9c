-- Queries of the Nexmark benchmark with all of their columns, for BenchmarkNexmark; each headed by its number and how many rows it has
-- over events 0 to 99,999 at 3,000 events a second of event time, as another system counted them; -: it counted another query's.

-- q0 92000
SELECT auction, bidder, price, "dateTime", extra FROM bid;
-- q1 92000
SELECT auction, bidder, 0.908 * price AS price, "dateTime", extra FROM bid;
-- q2 379
SELECT auction, price FROM bid WHERE auction % 123 = 0;
-- q3 519
SELECT p.name, p.city, p.state, a.id FROM auction AS a JOIN person AS p ON p.id = a.seller WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA');
-- q4 5
WITH closing AS (
    SELECT a.id, a.category, max(b.price) AS price FROM auction AS a JOIN bid AS b ON b.auction = a.id AND b."dateTime" BETWEEN a."dateTime" AND a.expires
    GROUP BY a.id, a.category)
SELECT category, trunc(avg(price)) AS price FROM closing GROUP BY category;
-- q5 21
WITH counts AS (
    SELECT auction, count(*) AS bids, window_start, window_end FROM HOP(bid, "dateTime", INTERVAL '2 seconds', INTERVAL '10 seconds')
    GROUP BY auction, window_start, window_end),
most AS (SELECT max(bids) AS bids, window_start, window_end FROM counts GROUP BY window_start, window_end)
SELECT c.auction, c.bids, c.window_end FROM counts AS c JOIN most AS m ON c.window_start = m.window_start AND c.window_end = m.window_end AND c.bids >= m.bids;
-- q7 -
SELECT b.auction, b.bidder, b.price, b."dateTime", b.extra FROM bid AS b
    JOIN (SELECT max(price) AS price, window_end AS closed FROM TUMBLE(bid, "dateTime", INTERVAL '10 seconds') GROUP BY window_start, window_end) AS highest
    ON b.price = highest.price WHERE b."dateTime" BETWEEN highest.closed - INTERVAL '10 seconds' AND highest.closed;
-- q8 525
SELECT p.id, p.name, p.window_start FROM
    (SELECT id, name, window_start, window_end FROM TUMBLE(person, "dateTime", INTERVAL '10 seconds') GROUP BY id, name, window_start, window_end) AS p
    JOIN (SELECT seller, window_start, window_end FROM TUMBLE(auction, "dateTime", INTERVAL '10 seconds') GROUP BY seller, window_start, window_end) AS a
    ON p.id = a.seller AND p.window_start = a.window_start AND p.window_end = a.window_end;
-- q9 5524
SELECT id, "itemName", description, "initialBid", reserve, opened, expires, seller, category, extra, auction, bidder, price, bid_time, bid_extra FROM (
    SELECT a.id, a."itemName", a.description, a."initialBid", a.reserve, a."dateTime" AS opened, a.expires, a.seller, a.category, a.extra,
        b.auction, b.bidder, b.price, b."dateTime" AS bid_time, b.extra AS bid_extra,
        row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b."dateTime" ASC) AS place
    FROM auction AS a JOIN bid AS b ON b.auction = a.id AND b."dateTime" BETWEEN a."dateTime" AND a.expires) AS x
WHERE place <= 1;
-- q10 92000
SELECT auction, bidder, price, "dateTime", extra, to_char("dateTime", 'YYYY-MM-DD') AS dt, to_char("dateTime", 'HH24:MI') AS hm FROM bid;
-- q11 1917
SELECT bidder, count(*) AS bids, window_start, window_end FROM SESSION(bid, "dateTime", INTERVAL '10 seconds') GROUP BY bidder, window_start, window_end;
-- q15 1
SELECT to_char("dateTime", 'YYYY-MM-DD') AS dt, count(*) AS bids, count(*) FILTER (WHERE price < 10000) AS bids1,
    count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS bids2, count(*) FILTER (WHERE price >= 1000000) AS bids3,
    count(DISTINCT bidder) AS bidders, count(DISTINCT bidder) FILTER (WHERE price < 10000) AS bidders1,
    count(DISTINCT bidder) FILTER (WHERE price >= 10000 AND price < 1000000) AS bidders2, count(DISTINCT bidder) FILTER (WHERE price >= 1000000) AS bidders3,
    count(DISTINCT auction) AS auctions, count(DISTINCT auction) FILTER (WHERE price < 10000) AS auctions1,
    count(DISTINCT auction) FILTER (WHERE price >= 10000 AND price < 1000000) AS auctions2, count(DISTINCT auction) FILTER (WHERE price >= 1000000) AS auctions3
FROM bid GROUP BY to_char("dateTime", 'YYYY-MM-DD');
-- q16 9910
SELECT channel, to_char("dateTime", 'YYYY-MM-DD') AS dt, max(to_char("dateTime", 'HH24:MI')) AS hm, count(*) AS bids,
    count(*) FILTER (WHERE price < 10000) AS bids1, count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS bids2,
    count(*) FILTER (WHERE price >= 1000000) AS bids3,
    count(DISTINCT bidder) AS bidders, count(DISTINCT bidder) FILTER (WHERE price < 10000) AS bidders1,
    count(DISTINCT bidder) FILTER (WHERE price >= 10000 AND price < 1000000) AS bidders2, count(DISTINCT bidder) FILTER (WHERE price >= 1000000) AS bidders3,
    count(DISTINCT auction) AS auctions, count(DISTINCT auction) FILTER (WHERE price < 10000) AS auctions1,
    count(DISTINCT auction) FILTER (WHERE price >= 10000 AND price < 1000000) AS auctions2, count(DISTINCT auction) FILTER (WHERE price >= 1000000) AS auctions3
FROM bid GROUP BY channel, to_char("dateTime", 'YYYY-MM-DD');
-- q17 6000
SELECT auction, to_char("dateTime", 'YYYY-MM-DD') AS dt, count(*) AS bids, count(*) FILTER (WHERE price < 10000) AS bids1,
    count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS bids2, count(*) FILTER (WHERE price >= 1000000) AS bids3,
    min(price) AS lowest, max(price) AS highest, avg(price) AS average, sum(price) AS total
FROM bid GROUP BY auction, to_char("dateTime", 'YYYY-MM-DD');
-- q18 28479
SELECT auction, bidder, price, channel, url, "dateTime", extra
FROM (SELECT *, row_number() OVER (PARTITION BY bidder, auction ORDER BY "dateTime" DESC) AS place FROM bid) AS x WHERE place <= 1;
-- q19 43844
SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS place FROM bid) AS x WHERE place <= 10;
-- q20 20901
SELECT b.auction, b.bidder, b.price, b.channel, b.url, b."dateTime" AS bid_time, b.extra AS bid_extra,
    a."itemName", a.description, a."initialBid", a.reserve, a."dateTime" AS opened, a.expires, a.seller, a.category, a.extra
FROM bid AS b JOIN auction AS a ON a.id = b.auction WHERE a.category = 10;
-- q22 92000
SELECT auction, bidder, price, channel, split_part(url, '/', 4) AS dir1, split_part(url, '/', 5) AS dir2, split_part(url, '/', 6) AS dir3 FROM bid;
-- q23 150109
SELECT b.bidder, b.price, b.channel, b.url, b.extra AS bid_extra, p.id AS person_id, p.name, p."emailAddress", p."creditCard", p.city, p.state,
    p.extra AS person_extra, a."itemName", a.description, a."initialBid", a.reserve, a."dateTime" AS opened, a.expires, a.seller, a.category, a.extra
FROM bid AS b JOIN person AS p ON p.id = b.bidder JOIN auction AS a ON a.seller = b.bidder;
