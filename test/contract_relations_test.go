package test

import "testing"

// relations runs ad-hoc queries over several relations; what they answer is what PostgreSQL answers.
func relations(t *testing.T, at string) {
	sql(t, at, `CREATE STREAM ra (id BIGINT, k TEXT, v BIGINT, ts TIMESTAMPTZ);
		CREATE STREAM rb (id BIGINT, aid BIGINT, price BIGINT, j JSONB);
		INSERT INTO ra VALUES (1, 'x', 10, '2020-01-01 00:00:01'), (2, 'y', 20, '2020-01-01 00:00:02'), (3, 'x', 30, '2020-01-01 00:00:03'), (4, NULL, NULL, '2020-01-01 00:00:13');
		INSERT INTO rb VALUES (1, 1, 100, '[1, 2]'), (2, 1, 200, '[]'), (3, 2, 50, NULL), (4, 9, 7, '["q"]'), (5, NULL, 1, '{"z": 1}')`)
	for _, c := range []struct {
		query string
		rows  []string
	}{
		{"SELECT a.id, b.id AS b FROM ra a LEFT JOIN rb b ON b.aid = a.id ORDER BY 1, 2", []string{`{"id":1,"b":1}`, `{"id":1,"b":2}`, `{"id":2,"b":3}`, `{"id":3,"b":null}`, `{"id":4,"b":null}`}},
		{"SELECT a.id, b.id AS b FROM ra a FULL JOIN rb b ON b.aid = a.id AND b.price > 60 WHERE a.id IS NULL OR b.id IS NULL ORDER BY 1, 2",
			[]string{`{"id":2,"b":null}`, `{"id":3,"b":null}`, `{"id":4,"b":null}`, `{"id":null,"b":3}`, `{"id":null,"b":4}`, `{"id":null,"b":5}`}},
		{"SELECT a.id FROM ra a WHERE EXISTS (SELECT 1 FROM rb b WHERE b.aid = a.id) ORDER BY 1", []string{`{"id":1}`, `{"id":2}`}},
		{"SELECT id FROM ra WHERE id NOT IN (SELECT aid FROM rb)", nil},
		{"SELECT id FROM ra WHERE id NOT IN (SELECT aid FROM rb WHERE aid IS NOT NULL) ORDER BY 1", []string{`{"id":3}`, `{"id":4}`}},
		{"SELECT a.id, (SELECT count(*) FROM rb b WHERE b.aid = a.id) AS n, (SELECT max(price) FROM rb b WHERE b.aid = a.id) AS m FROM ra a ORDER BY 1",
			[]string{`{"id":1,"n":2,"m":200}`, `{"id":2,"n":1,"m":50}`, `{"id":3,"n":0,"m":null}`, `{"id":4,"n":0,"m":null}`}},
		{"SELECT k, count(*) AS n, grouping(k) AS g FROM ra GROUP BY ROLLUP (k) ORDER BY 3, 1",
			[]string{`{"k":"x","n":2,"g":0}`, `{"k":"y","n":1,"g":0}`, `{"k":null,"n":1,"g":0}`, `{"k":null,"n":4,"g":1}`}},
		{"WITH t AS (SELECT k, sum(v) AS s FROM ra GROUP BY k) SELECT x.k, x.s FROM t x WHERE x.s >= (SELECT max(s) FROM t)", []string{`{"k":"x","s":40}`}},
		{"SELECT id FROM ra INTERSECT SELECT aid FROM rb ORDER BY 1", []string{`{"id":1}`, `{"id":2}`}},
		{"SELECT id FROM ra EXCEPT SELECT aid FROM rb ORDER BY 1", []string{`{"id":3}`, `{"id":4}`}},
		{"SELECT a.id, t.price FROM ra a LEFT JOIN LATERAL (SELECT price FROM rb b WHERE b.aid = a.id ORDER BY price DESC LIMIT 1) t ON true ORDER BY 1",
			[]string{`{"id":1,"price":200}`, `{"id":2,"price":50}`, `{"id":3,"price":null}`, `{"id":4,"price":null}`}},
		{"SELECT t.v, u.w FROM (VALUES (1), (2)) t(v), LATERAL (VALUES (t.v * 10), (t.v * 20)) u(w) ORDER BY 1, 2",
			[]string{`{"v":1,"w":10}`, `{"v":1,"w":20}`, `{"v":2,"w":20}`, `{"v":2,"w":40}`}},
		{"SELECT window_start - '2020-01-01' AS w, count(*) AS n FROM HOP(ra, ts, INTERVAL '1 second', INTERVAL '2 seconds') GROUP BY window_start, window_end ORDER BY 1",
			[]string{`{"w":"00:00:00","n":1}`, `{"w":"00:00:01","n":2}`, `{"w":"00:00:02","n":2}`, `{"w":"00:00:03","n":1}`, `{"w":"00:00:12","n":1}`, `{"w":"00:00:13","n":1}`}},
		{"SELECT window_end - window_start AS w, count(*) AS n FROM SESSION(ra, ts, INTERVAL '5 seconds') GROUP BY window_start, window_end ORDER BY 1",
			[]string{`{"w":"00:00:05","n":1}`, `{"w":"00:00:07","n":3}`}},
		{"SELECT k, string_agg(id::text, ',' ORDER BY id DESC) AS s, count(DISTINCT v) AS n FROM ra GROUP BY k ORDER BY k",
			[]string{`{"k":"x","s":"3,1","n":2}`, `{"k":"y","s":"2","n":1}`, `{"k":null,"s":"4","n":0}`}},
		{"SELECT id, aid IN (SELECT id FROM ra) AS i FROM rb ORDER BY 1",
			[]string{`{"id":1,"i":true}`, `{"id":2,"i":true}`, `{"id":3,"i":true}`, `{"id":4,"i":false}`, `{"id":5,"i":null}`}},
		{"SELECT aid, price FROM (SELECT aid, price, rank() OVER (PARTITION BY aid ORDER BY price DESC) AS place FROM rb) t WHERE place = 1 AND aid < 9 ORDER BY 1",
			[]string{`{"aid":1,"price":200}`, `{"aid":2,"price":50}`}},
	} {
		answers(t, at, c.query, c.rows...)
	}
	fails(t, at, "SELECT (SELECT id FROM rb) FROM ra", "more than one row", "1:8")
}
