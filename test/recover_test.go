package test

import (
	"fmt"
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
	write(0)
	held := map[int]bool{}
	for _, p := range status(t, last.grpc).Partitions {
		if p.Primary == "n4" {
			held[p.ID] = true
		}
	}
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
