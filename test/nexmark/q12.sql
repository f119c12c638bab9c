-- Bids per bidder in each 10 s of processing time. Which these are depends on the clock; their sums don't.
-- compare SELECT bidder, sum(bids) AS bids FROM q12 GROUP BY bidder
SELECT bidder, count(*) AS bids, window_start, window_end
FROM TUMBLE(bid, _time, INTERVAL '10 seconds')
GROUP BY bidder, window_start, window_end
