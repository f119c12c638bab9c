package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/millrace/millrace/client"
	"github.com/millrace/millrace/node"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

func TestUsageErrors(t *testing.T) {
	var n *fakeNode
	t.Setenv(addrEnv, "")
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"sned"}, `unknown command "sned" for "millrace"; did you mean "send"?`},
		{[]string{"cluster", "stat"}, `did you mean "status"?`},
		{[]string{"cluster", "xyz"}, `see millrace cluster --help`},
		{[]string{"sql", "--nope"}, "unknown flag: --nope"},
		{[]string{"sql", "--format", "xml", "-c", "x"}, `--format "xml"`},
		{[]string{"sql", "-c", "x", "file"}, "not both"},
		{[]string{"sql", "/no/such/file"}, "no such file"},
		{[]string{"sql", "--addr", "a:b:c", "-c", "x"}, "want HOST:PORT"},
		{[]string{"sql", "--addr", "a:0", "-c", "x"}, "is not a port"},
		{[]string{"send"}, "millrace send: accepts between 1 and 2 arg(s)"},
		{[]string{"send", "s", "/no/such/file"}, "no such file"},
		{[]string{"send", "s", "--format", "xml"}, `--format "xml"`},
		{[]string{"send", "s", "--compression", "gzip"}, "use none, s2 or zstd"},
		{[]string{"send", "s", "--timeout", "0s"}, "--timeout"},
		{[]string{"send", "s", "--rate", "-1"}, "--rate"},
		{[]string{"send", "s", "--batch-bytes", "1"}, "--batch-bytes"},
		{[]string{"read"}, "accepts 1 arg(s)"},
		{[]string{"read", "s", "--from", "yesterdayish"}, "--from"},
		{[]string{"cluster", "drain"}, "accepts 1 arg(s)"},
		{[]string{"serve", "extra"}, "millrace serve"},
		{[]string{"serve", "--config", "/no/such/file"}, "there is no such file"},
		{[]string{"serve", "--log-level", "loud"}, "--log-level"},
		{[]string{"serve", "--max-record", "many"}, "number of bytes"},
	} {
		code, out, errs := n.millrace(t, "", test.args...)
		if code != 2 || out != "" || !strings.HasPrefix(errs, "millrace: ") || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, test.want) {
			t.Errorf("%q: exit %d, stdout %q, stderr %q", test.args, code, out, errs)
		}
	}
}

func TestUnreachable(t *testing.T) {
	var n *fakeNode
	code, out, errs := n.millrace(t, "", "cluster", "status", "--addr", "127.0.0.1:1,127.0.0.1:2", "--addr", "127.0.0.1:3")
	if code != 1 || out != "" || strings.Count(errs, "\n") != 1 || strings.Count(errs, "connection refused") != 3 {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
	}
}

// TestAlternativeAddresses: a node that can't be reached is left for the next.
func TestAlternativeAddresses(t *testing.T) {
	n := startFake(t)
	n.on("SELECT 1", nil, "OK")
	code, out, errs := n.millrace(t, "", "sql", "--addr", "127.0.0.1:1", "--addr", n.addr, "-c", "SELECT 1")
	if code != 0 || out != "OK\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
	}
}

func TestHelp(t *testing.T) {
	a := &app{stdout: io.Discard, stderr: io.Discard}
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		if c.Name() == "help" || c.Name() == "completion" {
			return
		}
		if c.Example == "" || c.Short == "" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		if !c.SilenceUsage || !c.SilenceErrors {
			t.Errorf("%s shows its usage on an error", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	check(a.rootCommand())
	for _, args := range [][]string{{}, {"--help"}, {"cluster"}, {"send", "--help"}} {
		var n *fakeNode
		if code, out, errs := n.millrace(t, "", args...); code != 0 || !strings.Contains(out, "Examples:") || errs != "" {
			t.Errorf("%q: exit %d, stdout %q, stderr %q", args, code, out, errs)
		}
	}
	var n *fakeNode
	if code, out, _ := n.millrace(t, "", "version"); code != 0 || !strings.HasPrefix(out, "millrace ") {
		t.Errorf("exit %d, %q", code, out)
	}
}

func TestConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "millrace.toml")
	parse := func(text string, args ...string) (node.Config, error) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg := node.DefaultConfig()
		var o serveOptions
		f := pflag.NewFlagSet("serve", pflag.ContinueOnError)
		serveFlags(f, &cfg, &o)
		if err := f.Parse(args); err != nil {
			t.Fatal(err)
		}
		return cfg, readConfig(path, f)
	}
	cfg, err := parse(`
		data = "/tmp/x"     # a comment
		join = ["127.0.0.1:1", "127.0.0.1:2"]
		partitions = 16
		pprof = true
		max-record = "1MiB"
		max_staleness = "3s"
		name = "from-file"`, "--name", "from-flag")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.DataDir != "/tmp/x" || strings.Join(cfg.Join, " ") != "127.0.0.1:1 127.0.0.1:2" || cfg.Partitions != 16 || !cfg.PProf ||
		cfg.MaxRecordBytes != 1<<20 || cfg.MaxStaleness != 3*time.Second || cfg.Name != "from-flag" {
		t.Errorf("%+v", cfg)
	}
	for text, want := range map[string]string{
		`partitons = 3`:          `unknown key "partitons"; did you mean "partitions"?`,
		`whatever = 3`:           `unknown key "whatever"; the keys are`,
		`config = "x"`:           `unknown key "config"`,
		`ephemeral = true`:       `unknown key "ephemeral"`,
		`partitions = "many"`:    `key "partitions"`,
		`partitions = 1.5`:       `key "partitions": want`,
		`join = [1]`:             `want a list of strings`,
		"name = \"x\"\n[more]":   `unknown key "more"`,
		"name = \"x\"\nname = =": `toml:2`,
	} {
		if _, err := parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	yaml := filepath.Join(t.TempDir(), "c.yaml")
	if err := readConfig(yaml, pflag.NewFlagSet("", 0)); err == nil || !strings.Contains(err.Error(), "TOML") {
		t.Errorf("%v", err)
	}
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "65536": 65536, "8MiB": 8 << 20, "1.5 KiB": 1536, "2M": 2 << 20, "3kB": 3000, "7B": 7} {
		if n, err := parseBytes(text); n != want || err != nil {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "1.5", "1XB", "9999999999G"} {
		if n, err := parseBytes(text); err == nil {
			t.Errorf("%q: %d", text, n)
		}
	}
	for n, want := range map[int64]string{8 << 20: "8MiB", 1536: "1536", 1 << 30: "1GiB", 0: "0"} {
		if got := formatBytes(n); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
}

func description() *millracev1.DescribeResponse {
	return &millracev1.DescribeResponse{
		Cluster: "c-1", Leader: "n1", Tick: 1700000000000001,
		Nodes: []*millracev1.Node{
			{Name: "n1", Id: "i1", Grpc: "127.0.0.1:1", Gossip: "127.0.0.1:2", Http: "127.0.0.1:3", Pg: "127.0.0.1:8", State: "alive", Voter: true, Replicas: 2, Primaries: 1},
			{Name: "n2", Id: "i2", Grpc: "127.0.0.1:4", Gossip: "127.0.0.1:5", Http: "127.0.0.1:6", Zone: "z", State: "dead"},
		},
		Partitions: []*millracev1.Partition{
			{Id: 0, Epoch: 3, Primary: "n1", Replicas: []string{"n1", "n2"}, InSync: []string{"n1"}, EndBytes: 5000},
			{Id: 1, Epoch: 4},
		},
		TargetReplicas: 3,
		Notices:        []string{"2 of 3 copies: fewer nodes than replicas"},
	}
}

func TestClusterStatus(t *testing.T) {
	n := startFake(t)
	n.description = description()
	code, out, errs := n.millrace(t, "", "cluster", "status", "--json")
	want := `{"cluster":"c-1","leader":"n1","tick":1700000000000001,"nodes":[` +
		`{"name":"n1","grpc":"127.0.0.1:1","gossip":"127.0.0.1:2","http":"127.0.0.1:3","zone":"","state":"alive","voter":true,"replicas":2,"primaries":1,"pg":"127.0.0.1:8"},` +
		`{"name":"n2","grpc":"127.0.0.1:4","gossip":"127.0.0.1:5","http":"127.0.0.1:6","zone":"z","state":"dead","voter":false,"replicas":0,"primaries":0,"pg":""}],` +
		`"partitions":[{"id":0,"epoch":3,"primary":"n1","replicas":["n1","n2"],"in_sync":["n1"],"end_bytes":5000},` +
		`{"id":1,"epoch":4,"primary":null,"replicas":[],"in_sync":[],"end_bytes":0}],"moves":[]}` + "\n"
	if code != 0 || out != want || errs != "millrace: 2 of 3 copies: fewer nodes than replicas\n" {
		t.Errorf("exit %d, stderr %q\n got %s\nwant %s", code, errs, out, want)
	}
	n.description = &millracev1.DescribeResponse{Cluster: "c", Moves: []*millracev1.Move{{Partition: 1, To: "n3", Phase: "copy", DoneBytes: 5, TotalBytes: 9}}}
	_, out, _ = n.millrace(t, "", "cluster", "status", "--json")
	if want := `{"cluster":"c","leader":null,"tick":0,"nodes":[],"partitions":[],"moves":[{"partition":1,"from":null,"to":"n3","phase":"copy","done_bytes":5,"total_bytes":9,"bytes_per_second":0}]}` + "\n"; out != want {
		t.Errorf("\n got %s\nwant %s", out, want)
	}
	n.description = description()
	n.description.Moves = []*millracev1.Move{{Partition: 1, From: "n1", To: "n2", Phase: "copy", DoneBytes: 512, TotalBytes: 3 << 20, BytesPerSecond: 1 << 20}}
	code, out, _ = n.millrace(t, "", "cluster", "status")
	want = `cluster c-1   leader n1   tick 1700000000000001

NODE  STATE  ZONE  GRPC         GOSSIP       HTTP         PG           VOTER  REPLICAS  PRIMARIES
n1    alive  -     127.0.0.1:1  127.0.0.1:2  127.0.0.1:3  127.0.0.1:8  yes    2         1
n2    dead   z     127.0.0.1:4  127.0.0.1:5  127.0.0.1:6  -            no     0         0

PARTITION  EPOCH  PRIMARY  REPLICAS  IN SYNC  SIZE
0          3      n1       n1,n2     n1       4.9 KiB
1          4      -        -         -        0 B

MOVING  FROM  TO  PHASE  DONE   OF       LEFT
1       n1    n2  copy   512 B  3.0 MiB  3s
1 move, copied 512 B of 3.0 MiB, about 3s left

note: 2 of 3 copies: fewer nodes than replicas
`
	if code != 0 || out != want {
		t.Errorf("exit %d\n got %s\nwant %s", code, out, want)
	}
}

func TestClusterDrainAndRemove(t *testing.T) {
	n := startFake(t)
	n.description = description()
	n.description.Nodes[1].State = "alive"
	for _, test := range []struct {
		args      []string
		code      int
		out, errs string
	}{
		{[]string{"drain", "n2"}, 0, "node n2 is drained: nothing depends on it any more, it can be stopped\n", "drained: 0 replicas and 0 primaries left"},
		{[]string{"drain", "n2", "--json"}, 0, `{"node":"n2","state":"drained"}` + "\n", `{"node":"n2","state":"drained","replicas":0,"primaries":0}`},
		{[]string{"drain", "n2", "--no-wait"}, 0, "node n2 is draining; see millrace cluster status\n", ""},
		{[]string{"drain", "n9"}, 1, "", `millrace: unknown node "n9"`},
		{[]string{"remove", "n1"}, 1, "", `drain it first, or use --force`},
		{[]string{"remove", "n1", "--force"}, 0, "node n1 is removed\n", ""},
	} {
		code, out, errs := n.millrace(t, "", append([]string{"cluster"}, test.args...)...)
		if code != test.code || out != test.out || !strings.Contains(errs, test.errs) {
			t.Errorf("%q: exit %d, stdout %q, stderr %q", test.args, code, out, errs)
		}
	}
	if len(n.drained) != 3 || len(n.removed) != 1 {
		t.Errorf("drained %v, removed %v", n.drained, n.removed)
	}
}

func TestRead(t *testing.T) {
	n := startFake(t)
	n.records = []*millracev1.ReadRecord{
		{Partition: 0, Offset: 0, Tick: 9, TimeUs: 1767225845123456, Key: []byte("k\"1"), Value: []byte(`{"id": 1}`)},
		{Partition: 1, Offset: 5, Tick: 10, TimeUs: 1767225845000000, Value: []byte("{\n \"id\": 2 }")},
		{Partition: 1, Offset: 6, Tick: 10, TimeUs: 1767225845000000, Value: []byte("not json"), Error: "malformed"},
		{Partition: 1, Offset: 7, Tick: 10, TimeUs: 1767225845000000, Key: []byte{0xff}, Value: []byte{0xfe}, Error: "malformed"},
	}
	code, out, errs := n.millrace(t, "", "read", "bids", "--limit", "1")
	if code != 0 || out != "{\"id\": 1}\n" || errs != "" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
	}
	code, out, _ = n.millrace(t, "", "read", "bids", "--json", "--from", "end")
	want := `{"partition":0,"offset":0,"tick":9,"time":"2026-01-01T00:04:05.123456Z","key":"k\"1","value":{"id": 1}}
{"partition":1,"offset":5,"tick":10,"time":"2026-01-01T00:04:05.000000Z","key":null,"value":{"id":2}}
{"partition":1,"offset":6,"tick":10,"time":"2026-01-01T00:04:05.000000Z","key":null,"value":"not json","error":"malformed"}
{"partition":1,"offset":7,"tick":10,"time":"2026-01-01T00:04:05.000000Z","key":null,"key_base64":"/w==","value":null,"value_base64":"/g==","error":"malformed"}
`
	if code != 0 || out != want {
		t.Errorf("exit %d\n got %s\nwant %s", code, out, want)
	}
	if !n.reads[1].FromEnd || n.reads[0].Limit != 1 {
		t.Errorf("%v", n.reads)
	}
	n.records = n.records[2:3]
	_, out, _ = n.millrace(t, "", "read", "bids", "--dead", "--from", "2026-01-01T00:00:00Z")
	if out != "1\t6\tmalformed\tnot json\n" {
		t.Errorf("%q", out)
	}
	if r := n.reads[2]; !r.Dead || r.FromTimeUs != 1767225600000000 {
		t.Errorf("%v", r)
	}
	n.records = []*millracev1.ReadRecord{{Value: []byte(`1,"a ""b""",`)}}
	_, out, _ = n.millrace(t, "", "read", "table", "--json")
	if !strings.Contains(out, `"value":"1,\"a \"\"b\"\"\","}`) {
		t.Errorf("%q", out)
	}
	n.streams["table"].Key = "name" // then the key is in the record
	if _, out, _ = n.millrace(t, "", "read", "table", "--json"); !strings.Contains(out, `"key":"a \"b\"",`) {
		t.Errorf("%q", out)
	}
	if code, _, errs := n.millrace(t, "", "read", "bid"); code != 1 || errs != "millrace: unknown stream \"bid\"; did you mean \"bids\"?\n" {
		t.Errorf("exit %d, stderr %q", code, errs)
	}
}

func TestReadFrom(t *testing.T) {
	now := time.UnixMicro(1_000_000_000_000)
	for from, want := range map[string]int64{
		"start": 0, "10s": 999_990_000_000, "2d": 1_000_000_000_000 - 2*86_400_000_000, "1970-01-01T00:00:01Z": 1_000_000, "1970-01-01 00:00:02": 2_000_000,
	} {
		options, err := readFrom(from, now)
		if err != nil {
			t.Errorf("%s: %v", from, err)
			continue
		}
		var req millracev1.ReadRequest
		for _, o := range options {
			o(&req)
		}
		if req.FromTimeUs != want {
			t.Errorf("%s: %d, want %d", from, req.FromTimeUs, want)
		}
	}
}

// TestReadFollows: each record is written at once, and an interruption is a regular end.
func TestReadFollows(t *testing.T) {
	n := startFake(t)
	n.records = []*millracev1.ReadRecord{{Value: []byte("{}")}}
	cl, err := client.Dial(t.Context(), []string{n.addr})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var out lockedBuilder
	a := &app{stdout: &out, stderr: io.Discard}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- a.read(ctx, cl, "bids", []client.ReadOption{client.Follow()}, &recordPrinter{}, true)
	}()
	waitFor(t, func() bool { return out.String() == "{}\n" })
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}
