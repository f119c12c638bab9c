package test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestNexmark maintains Nexmark's queries while its events come, and compares how many rows they have in the end.
func TestNexmark(t *testing.T) {
	schema, err := os.ReadFile("nexmark/schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile("nexmark/queries.sql")
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, "nexmark").grpc
	answer(t, addr, "json", string(schema))
	want := map[string]string{}
	heads := regexp.MustCompile(`(?m)^-- (q\d+) (\d+)$`).FindAllStringSubmatchIndex(string(file), -1)
	for i, h := range heads {
		end := len(file)
		if i+1 < len(heads) {
			end = heads[i+1][0]
		}
		name, rows := string(file[h[2]:h[3]]), string(file[h[4]:h[5]])
		want[name] = rows
		answer(t, addr, "json", fmt.Sprintf("CREATE MATERIALIZED VIEW %s AS %s", name, strings.TrimSpace(string(file[h[1]:end]))))
	}
	for _, kind := range []string{"person", "auction", "bid"} {
		r := cli(t, nil, "send", kind, "--addr", addr, "--datagen", "nexmark:"+kind, "--events", "100000", "--event-rate", "3000", "--json")
		if r.code != 0 {
			t.Fatalf("send %s: %s", kind, r.err)
		}
	}
	for name, rows := range want {
		eventually(t, func() string {
			if got := fmt.Sprint(one(t, addr, "SELECT count(*) AS n FROM "+name)["n"]); got != rows {
				return fmt.Sprintf("%s has %s rows, not %s", name, got, rows)
			}
			return ""
		})
	}
}
