package test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

// readLine is a line of read --json.
type readLine struct {
	Partition, Offset, Tick int64
	Time                    time.Time
	Key                     *string
	Value                   json.RawMessage
	Error                   string
}

func reads(t *testing.T, addr, stream string, extra ...string) []readLine {
	t.Helper()
	r := cli(t, nil, append([]string{"read", stream, "--addr", addr, "--json"}, extra...)...)
	if r.code != 0 || r.err != "" {
		t.Fatalf("read %s: %+v", stream, r)
	}
	var out []readLine
	next := map[int64]int64{}
	for line := range strings.Lines(r.out) {
		var x readLine
		if err := json.Unmarshal([]byte(line), &x); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		keys := []string{"partition", "offset", "tick", "time", "key", "value"}
		if x.Error != "" {
			keys = append(keys, "error")
		}
		keysAre(t, line, keys...)
		if x.Offset < next[x.Partition] {
			t.Errorf("%s comes after offset %d", line, next[x.Partition]-1)
		}
		next[x.Partition] = x.Offset + 1
		out = append(out, x)
	}
	return out
}

// sendText runs send with input on stdin.
func sendText(t *testing.T, addr, stream, input string, extra ...string) result {
	t.Helper()
	r := cli(t, strings.NewReader(input), append([]string{"send", stream, "--addr", addr}, extra...)...)
	if m := tickForm.FindStringSubmatch(r.out); m != nil {
		acknowledge(number(m[1]))
	}
	return r
}

// tickForm finds the tick of send's result.
var tickForm = regexp.MustCompile(`tick"?[: ](\d+)`)

func TestContractRecords(t *testing.T) {
	s := serve(t, "solo", "--max-record", "1MiB")
	at := s.grpc

	t.Run("result line", func(t *testing.T) {
		sql(t, at, "CREATE STREAM plain (a BIGINT, b TEXT)")
		r := sendText(t, at, "plain", "{\"a\":1}\n{\"a\":2}")
		if !regexp.MustCompile(`^acknowledged 2 of 2 records, 0 rejected, in \d+(\.\d+)? s \(\d+ records/s\), tick \d+\n$`).MatchString(r.out) || r.code != 0 || r.err != "" {
			t.Errorf("%+v", r)
		}
		r = sendText(t, at, "plain", "{\"a\":1}\n{\"a\":2}\n", "--json")
		if !regexp.MustCompile(`^\{"acknowledged":2,"rejected":0,"seconds":[\d.e-]+,"tick":\d+\}\n$`).MatchString(r.out) || r.code != 0 {
			t.Errorf("%+v", r)
		}
		if r := sendText(t, at, "plain", "", "--json"); r.code != 0 || !strings.HasPrefix(r.out, `{"acknowledged":0,"rejected":0,`) {
			t.Errorf("%+v", r)
		}
	})
	t.Run("malformed lines", func(t *testing.T) {
		sql(t, at, "CREATE STREAM mal (a BIGINT)")
		in := "{\"a\":1}\ngarbage\n{\"a\":2\n{\"a\":3}\n[1]\n\"x\"\n{\"a\":\"x\"}\n{\"a\":4}x\n{\"a\":1.5}\n{\"zz\":0,\"a\":8,\"a\":9}\n{}\n"
		r := sendText(t, at, "mal", in)
		refused(t, r, 1, "3 rejected", "2-3, 8")
		for _, want := range []string{"line 2: ", "line 3: ", "line 8: "} {
			if !strings.Contains(r.err, want) {
				t.Errorf("%q lacks %q", r.err, want)
			}
		}
		if !strings.HasPrefix(r.out, "acknowledged 8 of 11 records, 3 rejected, ") {
			t.Errorf("%q", r.out)
		}
		answers(t, at, "SELECT a FROM mal ORDER BY a", `{"a":1}`, `{"a":3}`, `{"a":9}`, `{"a":null}`)
		dead := reads(t, at, "mal", "--dead")
		var raw []string
		for _, d := range dead {
			raw = append(raw, string(d.Value))
			if d.Error == "" {
				t.Errorf("%+v has no error", d)
			}
		}
		if got := strings.Join(raw, " "); got != `[1] "x" {"a":"x"} {"a":1.5}` {
			t.Errorf("dead letters %s", got)
		}
		letters := sql(t, at, seen()+"SELECT partition, \"offset\", error, raw FROM dead_letters('mal') ORDER BY 1, 2")
		if len(letters) != 4 || number(letters[0]["offset"]) != dead[0].Offset || letters[0]["raw"] != "[1]" || letters[2]["error"] != dead[2].Error {
			t.Errorf("%v", letters)
		}
		keysAre(t, strings.SplitN(answer(t, at, "json", "SELECT * FROM dead_letters('mal')"), "\n", 2)[0], "partition", "offset", "error", "raw")
		for _, r := range sql(t, at, "SHOW STREAMS") {
			if r["name"] == "mal" && (fmt.Sprint(r["records"]) != "8" || fmt.Sprint(r["dead"]) != "4") {
				t.Errorf("%v", r)
			}
		}
		fails(t, at, "SELECT * FROM dead_letters('nothing')", "nothing")
	})
	t.Run("csv", func(t *testing.T) { sendCSV(t, at) })
	t.Run("rate and progress", func(t *testing.T) {
		sql(t, at, "CREATE STREAM paced (a BIGINT)")
		begun := time.Now()
		r := sendText(t, at, "paced", strings.Repeat("{\"a\":1}\n", 1000), "--rate", "1000", "--json")
		took := time.Since(begun)
		if r.code != 0 || took < 900*time.Millisecond {
			t.Errorf("1000 records at 1000/s took %v: %+v", took, r)
		}
		last, lines := int64(-1), 0
		for line := range strings.Lines(r.err) {
			var p sendReport
			keysAre(t, line, "acknowledged", "rejected", "seconds", "tick")
			if err := json.Unmarshal([]byte(line), &p); err != nil || p.Acknowledged < last {
				t.Errorf("%v: %s after %d", err, line, last)
			}
			last = p.Acknowledged
			lines++
		}
		if most := 1 + int(took/(100*time.Millisecond)); lines < 2 || lines > most { // each 100 ms, or less often on a busy machine
			t.Errorf("%d progress lines in %v", lines, took)
		}
	})
	t.Run("too large", func(t *testing.T) {
		sql(t, at, "CREATE STREAM big (b TEXT)")
		r := sendText(t, at, "big", "{\"b\":1}\n{\"b\":\""+strings.Repeat("x", 1<<20)+"\"}\n{\"b\":\""+strings.Repeat("y", 1<<20-20)+"\"}\n{\"b\":2}\n")
		refused(t, r, 1, "1 rejected", "line 2")
		if !strings.HasPrefix(r.out, "acknowledged 3 of 4 records, 1 rejected, ") || !strings.Contains(r.err, "line 2: ") || !strings.Contains(r.err, "1048576") {
			t.Errorf("%q %q", r.out, r.err)
		}
	})
	t.Run("read", func(t *testing.T) { readOptions(t, at) })
	t.Run("keys", func(t *testing.T) { recordKeys(t, at) })
	t.Run("times", func(t *testing.T) {
		sql(t, at, "CREATE STREAM times (n BIGINT, at TIMESTAMPTZ)")
		sends(t, at, "times", `{"n":1,"at":"2026-01-01T02:00:00.5+02:00"}`, `{"n":2,"at":"2026-01-01 00:00:00.5"}`, `{"n":3,"at":1767225600500000}`,
			`{"n":4,"at":"2026-01-01 05:30:00.5+05:30"}`, `{"n":5,"at":"2026-01-01"}`, `{"n":6,"at":"1767225600500000x"}`)
		answers(t, at, "SELECT at, count(*) AS c FROM times GROUP BY at ORDER BY at", `{"at":"2026-01-01T00:00:00.000000Z","c":1}`, `{"at":"2026-01-01T00:00:00.500000Z","c":4}`)
	})
	t.Run("protobuf", func(t *testing.T) { protobufStream(t, at) })
	t.Run("timeout", func(t *testing.T) {
		// A node that is stopped takes nothing: send gives up in time and names the lines.
		sql(t, at, "CREATE STREAM slow (a BIGINT)")
		in, feed, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer feed.Close()
		cmd := exec.Command(binary, "send", "slow", "--addr", at, "--timeout", "10s") // the first line needs some of it
		var out, errs lockedBuffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Process.Kill()
		fmt.Fprintln(feed, `{"a":1}`)
		eventually(t, func() string {
			if c := one(t, at, "SELECT count(*) AS c FROM slow"); fmt.Sprint(c["c"]) != "1" {
				return "the first line doesn't arrive"
			}
			return ""
		})
		if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer s.cmd.Process.Signal(syscall.SIGCONT)
		fmt.Fprintln(feed, `{"a":2}`)
		fmt.Fprintln(feed, `{"a":3}`)
		feed.Close()
		err = cmd.Wait()
		refused(t, result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}, 1, "2 not acknowledged", "lines 2-3")
		if !strings.HasPrefix(out.String(), "acknowledged 1 of 3 records, 0 rejected, ") {
			t.Errorf("%v: %q", err, out.String())
		}
	})
}

func sendCSV(t *testing.T, at string) {
	sql(t, at, "CREATE STREAM c (a BIGINT, b TEXT, t TIMESTAMPTZ); CREATE STREAM cc (a BIGINT, b TEXT, t TIMESTAMPTZ) WITH (format = 'csv', key = 'b')")
	const in = "b,a,t\nx,1,2026-01-01T00:00:00Z\n\"\",2,\n,3,1767225600000000\n\"q\"\"u,\no\",4,2026-01-01 02:00:00+02\nshort\n"
	want := []string{
		`{"a":1,"b":"x","t":"2026-01-01T00:00:00.000000Z"}`, `{"a":2,"b":"","t":null}`,
		`{"a":3,"b":null,"t":"2026-01-01T00:00:00.000000Z"}`, `{"a":4,"b":"q\"u,\no","t":"2026-01-01T00:00:00.000000Z"}`,
	}
	for _, stream := range []string{"c", "cc"} {
		r := sendText(t, at, stream, in, "--format", "csv")
		refused(t, r, 1, "1 rejected", "line 7") // a record may go on over lines
		if !strings.HasPrefix(r.out, "acknowledged 4 of 5 records, 1 rejected, ") {
			t.Errorf("%q", r.out)
		}
		answers(t, at, "SELECT * FROM "+stream+" ORDER BY a", want...)
	}
	// A file called .csv needs no --format.
	f := filepath.Join(t.TempDir(), "x.csv")
	if err := os.WriteFile(f, []byte("a\n5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := cli(t, nil, "send", "cc", f, "--addr", at); r.code != 0 {
		t.Errorf("%+v", r)
	}
	answers(t, at, "SELECT * FROM cc WHERE a = 5", `{"a":5,"b":null,"t":null}`)
}

func readOptions(t *testing.T, at string) {
	sql(t, at, "CREATE STREAM r (a BIGINT)")
	var in []string
	for i := range 20 {
		in = append(in, fmt.Sprintf(`{"a":%d}`, i))
	}
	sends(t, at, "r", in[:10]...)
	between := time.Now()
	// Each append has the time of its own; the second half comes in a later millisecond.
	eventually(t, func() string {
		if time.Since(between) < 5*time.Millisecond {
			return "the clock stands still"
		}
		return ""
	})
	middle := time.Now().UTC().Format(time.RFC3339Nano)
	sends(t, at, "r", in[10:]...)
	count := func(extra ...string) int { return len(reads(t, at, "r", extra...)) }
	for want, args := range map[int][]string{
		20: {"--from", "start"}, 0: {"--from", "end"}, 10: {"--from", middle}, 7: {"--limit", "7"}, 3: {"--from", middle, "--limit", "3"},
	} {
		if n := count(args...); n != want {
			t.Errorf("%v: %d records, want %d", args, n, want)
		}
	}
	if n := count("--from", "1h"); n != 20 {
		t.Errorf("--from 1h: %d", n)
	}
	if n := count("--from", "2099-01-01T00:00:00Z"); n != 0 {
		t.Errorf("--from the future: %d", n)
	}
	seen := map[string]int{}
	r := cli(t, nil, "read", "r", "--addr", at)
	for line := range strings.Lines(r.out) {
		seen[strings.TrimSpace(line)]++
	}
	for _, line := range in {
		if seen[line] != 1 {
			t.Errorf("%s is there %d times", line, seen[line])
		}
	}
	// --follow goes on with what comes later, and begins at the end with --from end.
	cmd := exec.Command(binary, "read", "r", "--addr", at, "--from", "end", "--follow", "--limit", "2")
	out := &lockedBuffer{}
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for i := 0; ; i++ {
		select {
		case err := <-done:
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if err != nil || len(lines) != 2 || !strings.HasPrefix(lines[0], `{"a":10`) || lines[0] == lines[1] {
				t.Errorf("followed %v: %q", err, lines)
			}
			return
		case <-time.After(50 * time.Millisecond): // it has begun when it gets something; until then, there is more to get
			if i > 600 {
				t.Fatal("--follow --limit 2 doesn't end")
			}
			sends(t, at, "r", fmt.Sprintf(`{"a":%d}`, 10_000+i))
		}
	}
}

func recordKeys(t *testing.T, at string) {
	sql(t, at, "CREATE STREAM kj (id NUMERIC, v BIGINT) WITH (key = 'id'); CREATE STREAM kt (v BIGINT, id TIMESTAMPTZ) WITH (key = 'id', format = 'csv')")
	sends(t, at, "kj", `{"id":1.0,"v":1}`, `{"id":"1.00","v":2}`, `{"id":1e0,"v":3}`, `{"id":2,"id":1,"v":4}`, `{"v":5}`, `{"id":null,"v":6}`, `{"id":[],"v":7}`)
	parts := map[int64]bool{}
	var order []string
	for _, r := range reads(t, at, "kj") {
		var v struct{ V int }
		json.Unmarshal(r.Value, &v)
		switch {
		case v.V >= 5 && r.Key != nil:
			t.Errorf("%+v has a key", r)
		case v.V < 5 && (r.Key == nil || *r.Key != "1"):
			t.Errorf("key of %s isn't its column's canonical text", r.Value)
		case v.V < 5:
			parts[r.Partition] = true
			order = append(order, fmt.Sprint(v.V))
		}
	}
	if len(parts) != 1 || strings.Join(order, "") != "1234" {
		t.Errorf("records of one key are in partitions %v in order %v", parts, order)
	}
	answers(t, at, "SELECT v, _key FROM kj ORDER BY v", `{"v":1,"_key":"1"}`, `{"v":2,"_key":"1"}`, `{"v":3,"_key":"1"}`, `{"v":4,"_key":"1"}`, `{"v":5,"_key":null}`, `{"v":6,"_key":null}`)
	answers(t, at, "INSERT INTO kj VALUES (1.000, 8); SELECT count(*) AS n, max(_partition) - min(_partition) AS d FROM kj WHERE id = 1", `{"n":5,"d":0}`)
	if r := sendText(t, at, "kt", "id,v\n2026-01-01T01:00:00+01:00,1\n1767225600000000,2\n", "--format", "csv"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	for _, r := range reads(t, at, "kt") {
		if r.Key == nil || *r.Key != "2026-01-01 00:00:00+00" {
			t.Errorf("%+v", r)
		}
	}
}

// protobufStream makes a stream of a message described here, and appends to it as any client does.
func protobufStream(t *testing.T, at string) {
	field := func(name string, n int32, kind descriptorpb.FieldDescriptorProto_Type) *descriptorpb.FieldDescriptorProto {
		return &descriptorpb.FieldDescriptorProto{Name: proto.String(name), Number: proto.Int32(n), Type: kind.Enum(),
			Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
	}
	set, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{{
		Name: proto.String("t.proto"), Package: proto.String("t"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Row"), Field: []*descriptorpb.FieldDescriptorProto{
			field("id", 1, descriptorpb.FieldDescriptorProto_TYPE_STRING), field("n", 2, descriptorpb.FieldDescriptorProto_TYPE_INT64),
			field("d", 3, descriptorpb.FieldDescriptorProto_TYPE_DOUBLE),
		}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	text := base64.StdEncoding.EncodeToString(set)
	sql(t, at, "CREATE STREAM pb (id TEXT, n BIGINT, d DOUBLE PRECISION) WITH (format = 'protobuf', key = 'id', message = 't.Row', descriptor = '"+text+"')")
	fails(t, at, "CREATE STREAM pb2 (id TEXT) WITH (format = 'protobuf', message = 't.Nope', descriptor = '"+text+"')", "t.Nope")
	fails(t, at, "CREATE STREAM pb2 (nope TEXT) WITH (format = 'protobuf', message = 't.Row', descriptor = '"+text+"')", "nope")
	fails(t, at, "CREATE STREAM pb2 (id TEXT) WITH (format = 'protobuf')", "descriptor")
	good := []byte{0x0a, 2, 'a', 'b', 0x10, 0x7f} // id: "ab", n: 127
	appendRaw(t, at, "pb", good, []byte{0x0a, 200, 'x'})
	answers(t, at, "SELECT id, n, _key FROM pb", `{"id":"ab","n":127,"_key":"ab"}`)
	if dead := sql(t, at, seen()+"SELECT * FROM dead_letters('pb')"); len(dead) != 1 {
		t.Errorf("%v", dead)
	}
	answers(t, at, "INSERT INTO pb VALUES ('ins', -5, 1.5); SELECT * FROM pb WHERE id = 'ins'", `{"id":"ins","n":-5,"d":1.5}`)
	if r := cli(t, nil, "read", "pb", "--addr", at); r.code != 0 || !bytes.Contains([]byte(r.out), []byte(`"ab"`)) {
		t.Errorf("%+v", r)
	}
}
