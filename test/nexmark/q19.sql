-- Each auction's ten highest bids (any of those at the tenth price), with their places.
-- compare SELECT auction, price, place FROM q19
SELECT *
FROM (SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS place FROM bid) AS ranked
WHERE place <= 10
