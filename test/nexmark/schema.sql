CREATE STREAM person (id BIGINT, name TEXT, "emailAddress" TEXT, "creditCard" TEXT, city TEXT, state TEXT, "dateTime" TIMESTAMPTZ, extra TEXT,
    WATERMARK FOR "dateTime" AS "dateTime" - INTERVAL '4 seconds') WITH (key = 'id');
CREATE STREAM auction (id BIGINT, "itemName" TEXT, description TEXT, "initialBid" BIGINT, reserve BIGINT, "dateTime" TIMESTAMPTZ, expires TIMESTAMPTZ,
    seller BIGINT, category BIGINT, extra TEXT, WATERMARK FOR "dateTime" AS "dateTime" - INTERVAL '4 seconds') WITH (key = 'id');
CREATE STREAM bid (auction BIGINT, bidder BIGINT, price BIGINT, channel TEXT, url TEXT, "dateTime" TIMESTAMPTZ, extra TEXT,
    WATERMARK FOR "dateTime" AS "dateTime" - INTERVAL '4 seconds') WITH (key = 'auction');
CREATE TABLE side_input (key BIGINT PRIMARY KEY, value TEXT);
INSERT INTO side_input SELECT i, i::text FROM generate_series(0, 9999) AS i;
