package test

import (
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// TestTableCompaction replaces rows again and again, kills the node before and after fronts of the log are removed, and
// finds the table and a view of it as they were.
func TestTableCompaction(t *testing.T) {
	if testing.Short() {
		t.Skip("what was superseded is kept for a minute")
	}
	s := serve(t, "compaction", "--compact", "20KiB")
	answer(t, s.grpc, "json", `CREATE TABLE t (k BIGINT PRIMARY KEY, n BIGINT, filler TEXT);
		CREATE MATERIALIZED VIEW v AS SELECT count(*) AS rows, sum(n) AS total, sum(k) AS keys FROM t`)
	const keys, rounds = 500, 12
	sum := 0
	for round := range rounds {
		var in []string
		sum = 0
		for k := range keys {
			n := round*keys + k
			if round > 2 && k%5 != 0 { // most rows stay what they are
				n = 2*keys + k
			} else {
				in = append(in, fmt.Sprintf(`{"k":%d,"n":%d,"filler":"%x"}`, k, n, sha512.Sum512([]byte(fmt.Sprint(k, n)))))
			}
			sum += n
		}
		sends(t, s.grpc, "t", in...)
		if round == rounds/2 {
			s.kill()
			s.start()
		}
	}
	answer(t, s.grpc, "json", `DELETE FROM t WHERE k = 0`)
	sum -= (rounds - 1) * keys
	check := func() {
		t.Helper()
		want := fmt.Sprintf(`{"rows":%d,"total":%d,"keys":%d}`, keys-1, sum, keys*(keys-1)/2)
		answers(t, s.grpc, `SELECT count(*) AS rows, sum(n) AS total, sum(k) AS keys FROM t`, want)
		answers(t, s.grpc, `SELECT * FROM v`, want)
	}
	check()
	before := one(t, s.grpc, "SHOW TABLES")
	deadline := time.Now().Add(3 * time.Minute)
	for metric(t, s, "millrace_compaction_removed_bytes_total") < 20<<10 {
		if time.Now().After(deadline) {
			t.Fatalf("nothing was removed: %v compactions", metric(t, s, "millrace_compactions_total"))
		}
		time.Sleep(time.Second)
	}
	check()
	s.kill()
	s.start()
	check()
	bytes := func(row map[string]any) float64 {
		f, err := row["bytes"].(json.Number).Float64()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if after := one(t, s.grpc, "SHOW TABLES"); bytes(after) >= bytes(before) {
		t.Errorf("the log was %v bytes and is %v", before["bytes"], after["bytes"])
	}
	// Who reads the table from its beginning finds it as it is.
	answer(t, s.grpc, "json", `CREATE MATERIALIZED VIEW late AS SELECT count(*) AS rows, sum(n) AS total, sum(k) AS keys FROM t`)
	answers(t, s.grpc, `SELECT * FROM late`, fmt.Sprintf(`{"rows":%d,"total":%d,"keys":%d}`, keys-1, sum, keys*(keys-1)/2))
}
