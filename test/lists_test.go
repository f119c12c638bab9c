package test

import "testing"

// TestListAggregates keeps arrays and objects of a table's rows in a view while rows change and go.
func TestListAggregates(t *testing.T) {
	a := serve(t, "lists").grpc
	answer(t, a, "json", `CREATE TABLE t (id BIGINT PRIMARY KEY, k TEXT, v BIGINT);
		CREATE MATERIALIZED VIEW lists AS SELECT k, array_agg(v ORDER BY v DESC, id) AS v, array_agg(id ORDER BY id) FILTER (WHERE v > 5) AS big,
			jsonb_object_agg(id, v) AS o, string_agg(v::text, '+' ORDER BY id) AS s FROM t GROUP BY k;
		INSERT INTO t VALUES (1, 'a', 10), (2, 'a', NULL), (3, 'b', 7), (4, 'b', 7), (5, 'a', 3)`)
	const all = `SELECT * FROM lists ORDER BY k`
	answers(t, a, all, `{"k":"a","v":[null,10,3],"big":[1],"o":{"1": 10, "2": null, "5": 3},"s":"10+3"}`,
		`{"k":"b","v":[7,7],"big":[3,4],"o":{"3": 7, "4": 7},"s":"7+7"}`)
	answer(t, a, "json", `UPDATE t SET v = 6 WHERE id = 2; DELETE FROM t WHERE id IN (1, 3); UPDATE t SET k = 'c' WHERE (id, k) = (4, 'b')`)
	answers(t, a, all, `{"k":"a","v":[6,3],"big":[2],"o":{"2": 6, "5": 3},"s":"6+3"}`, `{"k":"c","v":[7],"big":[4],"o":{"4": 7},"s":"7"}`)
	answers(t, a, `SELECT id FROM t WHERE (k, id) > ('a', 2) ORDER BY id`, `{"id":4}`, `{"id":5}`)
	answers(t, a, `SELECT id FROM t WHERE (k, v) IN (('a', 6), ('c', 7), ('c', NULL)) ORDER BY id`, `{"id":2}`, `{"id":4}`)
	answers(t, a, `SELECT array_agg(g ORDER BY g DESC) AS g FROM generate_series(1.5, 3, 0.5) AS g`, `{"g":[3.0,2.5,2.0,1.5]}`)
	fails(t, a, `SELECT array_agg(ARRAY[id]) FROM t`, "no function array_agg")
	fails(t, a, `SELECT jsonb_object_agg(k || NULL, v) FROM t`, "must not be null")
	fails(t, a, `SELECT (1, 2) = (1, 2, 3)`, "unequal number")
	fails(t, a, `SELECT (id, k) FROM t`, "row values are not supported here")
}
