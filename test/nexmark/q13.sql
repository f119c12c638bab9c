-- Every bid with a value looked up in a table of 10,000 rows.
SELECT b.auction, b.bidder, b.price, b."dateTime", s.value
FROM bid AS b
JOIN side_input FOR SYSTEM_TIME AS OF b._time AS s ON s.key = b.auction % 10000
