-- The bids on auctions of category 10, with the auction.
SELECT b.auction, b.bidder, b.price, b.channel, b.url, b."dateTime" AS bid_time, b.extra AS bid_extra,
    a."itemName", a.description, a."initialBid", a.reserve, a."dateTime" AS opened, a.expires, a.seller,
    a.category, a.extra
FROM bid AS b
JOIN auction AS a ON a.id = b.auction
WHERE a.category = 10
