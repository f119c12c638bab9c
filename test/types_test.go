package test

import "testing"

// TestTypes takes values of every type from records through a view to answers.
func TestTypes(t *testing.T) {
	a := serve(t, "types").grpc
	answer(t, a, "json", `CREATE STREAM s (k BIGINT, d DATE, c TIME, ts TIMESTAMP, u UUID, tags TEXT[], n NUMERIC[]) WITH (key = 'k');
		CREATE MATERIALIZED VIEW v AS SELECT d, tags, n, count(*) AS rows, max(ts) AS last, min(c) AS first FROM s GROUP BY d, tags, n`)
	sends(t, a, "s",
		`{"k":1,"d":"2024-02-29","c":"10:00","ts":"2024-02-29T10:00:00","u":"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11","tags":["x",null,"y z"],"n":[1.50]}`,
		`{"k":2,"d":"2024-02-29","c":"09:30:00.5","ts":"2024-02-29 11:00","u":null,"tags":["x",null,"y z"],"n":[1.5]}`,
		`{"k":3,"d":"2024-02-30","c":"09:30"}`, `{"k":4,"tags":[1]}`, `{"k":5,"tags":{"a":1}}`)
	answers(t, a, `SELECT * FROM v`,
		`{"d":"2024-02-29","tags":["x",null,"y z"],"n":[1.5],"rows":2,"last":"2024-02-29T11:00:00.000000","first":"09:30:00.5"}`)
	answers(t, a, `SELECT k, u, d + 1 AS next, ts AT TIME ZONE 'America/New_York' AS at, tags[3] AS third FROM s WHERE 'x' = ANY (tags) AND u IS NOT NULL`,
		`{"k":1,"u":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","next":"2024-03-01","at":"2024-02-29T15:00:00.000000Z","third":"y z"}`)
	answers(t, a, `SELECT s.k, tag FROM s, unnest(tags) AS x(tag) WHERE tag <> 'x' ORDER BY k`, `{"k":1,"tag":"y z"}`, `{"k":2,"tag":"y z"}`)
	answers(t, a, `SELECT count(*) FROM dead_letters('s')`, `{"count":3}`)
	fails(t, a, `SELECT DATE '2024-02-30'`, "out of range")
	fails(t, a, `SELECT '{1,x}'::BIGINT[]`, "invalid input syntax")
	fails(t, a, `SELECT ARRAY[]`, "empty ARRAY[]")
}
