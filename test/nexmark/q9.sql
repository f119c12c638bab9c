-- Each auction with its winning bid: the highest while it was open, the earliest of equals.
-- compare SELECT id, "itemName", description, "initialBid", reserve, opened, expires, seller, category, extra, price, bid_time FROM q9
SELECT id, "itemName", description, "initialBid", reserve, opened, expires, seller, category, extra,
    auction, bidder, price, bid_time, bid_extra
FROM (
    SELECT a.id, a."itemName", a.description, a."initialBid", a.reserve, a."dateTime" AS opened, a.expires,
        a.seller, a.category, a.extra, b.auction, b.bidder, b.price, b."dateTime" AS bid_time,
        b.extra AS bid_extra,
        row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b."dateTime" ASC) AS place
    FROM auction AS a
    JOIN bid AS b ON b.auction = a.id AND b."dateTime" BETWEEN a."dateTime" AND a.expires) AS ranked
WHERE place <= 1
