package test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/client"
)

// TestRecoverUnsafe loses all in-sync replicas of some partitions for good while the cluster keeps its quorum, and has
// another node take them over as an operator's choice.
func TestRecoverUnsafe(t *testing.T) {
	servers := []*server{serve(t, "n1", "--replicas", "1")} // each partition on one node only
	for i := 2; i <= 4; i++ {
		servers = append(servers, serve(t, fmt.Sprint("n", i), "--join", servers[0].gossip))
	}
	waitInSync(t, servers[0], 1)
	last := servers[3]
	c, err := client.Dial(t.Context(), addresses(servers...))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sql(t, servers[0].grpc, "CREATE STREAM s (k BIGINT) WITH (format = 'json', key = 'k')")
	write := func(from int) {
		t.Helper()
		p, err := c.Producer(t.Context(), "s", client.WithTimeout(stepTimeout))
		if err != nil {
			t.Fatal(err)
		}
		for k := range 1000 {
			if err := p.Send(t.Context(), nil, fmt.Appendf(nil, `{"k":%d}`, from+k), nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	held := map[int]bool{}
	eventually(t, func() string { // partitions have moved there, and no more do
		st := status(t, last.grpc)
		clear(held)
		for _, p := range st.Partitions {
			if p.Primary == "n4" {
				held[p.ID] = true
			}
		}
		if len(held) == 0 || len(st.Moves) > 0 {
			return fmt.Sprintf("n4 has %d partitions, %d are moving", len(held), len(st.Moves))
		}
		return ""
	})
	write(0)
	recover := func(p int, extra ...string) result {
		return cli(t, nil, append([]string{"cluster", "recover", "--addr", servers[0].grpc, "--partition", fmt.Sprint(p), "--node", "n1"}, extra...)...)
	}
	for p := range held {
		if r := recover(p, "--unsafe"); r.code != 1 || !strings.Contains(r.err, "nothing needs to be forced") {
			t.Errorf("of a partition whose replica lives: %+v", r)
		}
	}
	last.kill()
	eventually(t, func() string {
		if st := nodeState(t, servers[0], "n4"); st != "dead" {
			return "n4 is " + st
		}
		return ""
	})
	clear(held) // more may have moved there since
	for _, p := range status(t, servers[0].grpc).Partitions {
		if slices.Contains(p.Replicas, "n4") {
			held[p.ID] = true
		}
	}
	for p := range held {
		if r := recover(p); r.code != 1 || !strings.Contains(r.err, "nothing was done") || !strings.Contains(r.err, "n4") {
			t.Errorf("without --unsafe: %+v", r)
		}
		if r := recover(p, "--unsafe"); r.code != 0 || !strings.Contains(r.err, "lost") || !strings.Contains(r.out, "n1") {
			t.Errorf("with it: %+v", r)
		}
	}
	write(1000) // everything takes appends again
	if r := cli(t, nil, "cluster", "remove", "n4", "--addr", servers[0].grpc); r.code != 0 {
		t.Errorf("remove: %+v", r)
	}
	waitInSync(t, servers[0], 1)
	n := fmt.Sprint(one(t, servers[0].grpc, fmt.Sprintf("SET min_tick = %d; SELECT count(*) AS n FROM s", c.SeenTick()))["n"])
	if n == "2000" || len(n) != 4 {
		t.Errorf("%s records are there", n)
	}
}

// TestLostMajority loses the disks of two of three nodes, and with them the majority of the Raft voters: the third goes on
// alone as an operator wants it, with all that was acknowledged, and new nodes join it.
func TestLostMajority(t *testing.T) {
	servers := cluster(t, 3)
	left, lost := servers[0], servers[1:]
	sql(t, left.grpc, `CREATE STREAM s (k BIGINT) WITH (format = 'json', key = 'k');
		CREATE MATERIALIZED VIEW v AS SELECT k % 10 AS d, count(*) AS n FROM s GROUP BY k % 10`)
	write := func(from int) uint64 {
		t.Helper()
		c, err := client.Dial(t.Context(), []string{left.grpc})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		p, err := c.Producer(t.Context(), "s", client.WithTimeout(2*stepTimeout))
		if err != nil {
			t.Fatal(err)
		}
		for k := range 1000 {
			if err := p.Send(t.Context(), nil, fmt.Appendf(nil, `{"k":%d}`, from+k), nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		return c.SeenTick()
	}
	write(0)
	recover := func(extra ...string) result {
		return cli(t, nil, append([]string{"cluster", "recover-majority", "--data", left.dir}, extra...)...)
	}
	if r := recover("--unsafe"); r.code != 1 || !strings.Contains(r.err, "in use") {
		t.Errorf("of a node that runs: %+v", r)
	}
	for _, s := range servers {
		s.kill()
	}
	for _, s := range lost {
		if err := os.RemoveAll(s.dir); err != nil {
			t.Fatal(err)
		}
	}
	if r := cli(t, nil, "cluster", "recover-majority", "--data", lost[0].dir, "--unsafe"); r.code != 1 || !strings.Contains(r.err, "isn't the data folder") {
		t.Errorf("of no folder: %+v", r)
	}
	if r := recover(); r.code != 1 || !strings.Contains(r.err, "nothing was done") || !strings.Contains(r.out, "n2") || !strings.Contains(r.out, "8 of 8") {
		t.Errorf("without --unsafe: %+v", r)
	}
	if r := recover("--unsafe"); r.code != 0 || !strings.Contains(r.out, "the only voter now") {
		t.Fatalf("with it: %+v", r)
	}
	left.start()
	for _, s := range lost {
		eventually(t, func() string {
			if st := nodeState(t, left, s.name); st != "dead" {
				return s.name + " is " + st
			}
			return ""
		})
		if r := cli(t, nil, "cluster", "remove", s.name, "--addr", left.grpc); r.code != 0 {
			t.Fatalf("remove: %+v", r)
		}
	}
	tick := write(1000)
	for _, s := range lost {
		s.extra = []string{"--join", left.gossip}
		s.start()
	}
	waitInSync(t, left, 3)
	for _, s := range servers {
		for _, q := range []string{"SELECT count(*) AS n FROM s", "SELECT sum(n) AS n FROM v"} {
			if n := one(t, s.grpc, fmt.Sprintf("SET min_tick = %d; %s", tick, q))["n"]; fmt.Sprint(n) != "2000" {
				t.Errorf("%s on %s: %v", q, s.name, n)
			}
		}
	}
	eventually(t, func() string {
		voters := 0
		for _, n := range status(t, left.grpc).Nodes {
			if n.State == "alive" && n.Voter {
				voters++
			}
		}
		if voters != 3 {
			return fmt.Sprintf("%d nodes that live vote, not 3", voters)
		}
		return ""
	})
}
