-- Bids per bidder and session; a session ends after 10 s without a bid.
SELECT bidder, count(*) AS bids, window_start AS started, window_end AS ended
FROM SESSION(bid, "dateTime", INTERVAL '10 seconds')
GROUP BY bidder, window_start, window_end
