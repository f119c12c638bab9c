package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// This file and the others called contract_* check, from outside, what the README and docs promise.

// httpGet returns the status and the body of an HTTP answer; status 0: nobody answers.
func httpGet(addr, path string) (status int, body string) {
	resp, err := http.Get("http://" + addr + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// refused checks that a command failed with a code, and said why in one line on stderr that has all the words.
func refused(t *testing.T, r result, code int, words ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d; stdout %q, stderr %q", r.code, code, r.out, r.err)
	}
	lines := strings.Split(strings.TrimSuffix(r.err, "\n"), "\n")
	last := lines[len(lines)-1]
	if !strings.HasPrefix(last, "millrace: ") || strings.Contains(r.err, "goroutine ") {
		t.Errorf("stderr is %q, want one line that begins with millrace:", r.err)
	}
	for _, w := range words {
		if !strings.Contains(last, w) {
			t.Errorf("stderr %q lacks %q", last, w)
		}
	}
}

// refusedInOneLine is refused for commands that have nothing else to say on stderr.
func refusedInOneLine(t *testing.T, r result, code int, words ...string) {
	t.Helper()
	refused(t, r, code, words...)
	if strings.Count(r.err, "\n") != 1 {
		t.Errorf("stderr has more than a line: %q", r.err)
	}
}

func TestContractServe(t *testing.T) {
	s := serve(t, "solo", "--zone", "z1")

	t.Run("ready line", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "other")
		cmd := exec.Command(binary, "serve", "--data", dir, "--name", "o", "--listen", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--http", "127.0.0.1:0")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Process.Kill()
		buf := make([]byte, 4096)
		n, err := out.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		form := regexp.MustCompile(`^millrace ready name=o grpc=127\.0\.0\.1:\d+ gossip=127\.0\.0\.1:\d+ http=(127\.0\.0\.1:\d+) pg=127\.0\.0\.1:\d+\n$`)
		m := form.FindStringSubmatch(string(buf[:n]))
		if m == nil {
			t.Fatalf("ready line %q", buf[:n])
		}
		if code, body := httpGet(m[1], "/readyz"); code != 200 {
			t.Errorf("/readyz right after the ready line: %d %q", code, body)
		}
		cmd.Process.Signal(syscall.SIGTERM)
		rest, _ := io.ReadAll(out)
		if err := cmd.Wait(); err != nil {
			t.Errorf("SIGTERM: %v", err)
		}
		if len(rest) > 0 {
			t.Errorf("stdout has more than the ready line: %q", rest)
		}
		// The folder belongs to another cluster now.
		id := status(t, s.grpc).Cluster
		r := cli(t, nil, "serve", "--data", dir, "--name", "o", "--listen", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--http", "127.0.0.1:0", "--join", s.gossip)
		refused(t, r, 1, id)
		if ids := regexp.MustCompile(`[0-9a-f]{32}`).FindAllString(r.err, -1); len(ids) != 2 || ids[0] == ids[1] {
			t.Errorf("%q doesn't name both clusters", r.err)
		}
	})

	t.Run("http", func(t *testing.T) {
		for _, path := range []string{"/healthz", "/readyz"} {
			if code, body := httpGet(s.http, path); code != 200 {
				t.Errorf("%s: %d %q", path, code, body)
			}
		}
		if code, body := httpGet(s.http, "/metrics"); code != 200 || !strings.Contains(body, "# TYPE millrace_") {
			t.Errorf("/metrics: %d %.200q", code, body)
		}
		if code, _ := httpGet(s.http, "/debug/pprof/"); code != 404 {
			t.Errorf("/debug/pprof/ without --pprof: %d", code)
		}
	})

	t.Run("not ready before", func(t *testing.T) {
		addr := reserve(t)
		cmd := exec.Command(binary, "serve", "--data", filepath.Join(t.TempDir(), "w"), "--listen", "127.0.0.1:0", "--gossip", "127.0.0.1:0",
			"--http", addr, "--join", reserve(t))
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		var out lockedBuffer
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Process.Kill()
		eventually(t, func() string {
			code, body := httpGet(addr, "/readyz")
			if code != http.StatusServiceUnavailable || strings.TrimSpace(body) == "" {
				return fmt.Sprintf("/readyz: %d %q, want 503 and the reason", code, body)
			}
			return ""
		})
		if code, body := httpGet(addr, "/healthz"); code != 200 {
			t.Errorf("/healthz while waiting: %d %q", code, body)
		}
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("SIGTERM while waiting for a peer: %v", err)
		}
		if out.String() != "" {
			t.Errorf("a node that isn't ready printed %q", out.String())
		}
	})

	t.Run("refused starts", func(t *testing.T) {
		free := []string{"--listen", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--http", "127.0.0.1:0"}
		start := func(args ...string) result {
			return cli(t, nil, append(append([]string{"serve", "--data", filepath.Join(t.TempDir(), "x")}, free...), args...)...)
		}
		refused(t, start("--name", "solo", "--join", s.gossip), 1, `"solo"`)
		refusedInOneLine(t, start("--listen", s.grpc), 1, s.grpc)
		refusedInOneLine(t, start("--data", s.dir), 1, s.dir)
		refusedInOneLine(t, start("--listen", "nonsense"), 2, "nonsense")
		refusedInOneLine(t, start("--partitions", "0"), 2, "--partitions")
		refusedInOneLine(t, start("--replicas", "0"), 2, "--replicas")
		refusedInOneLine(t, start("--no-such-flag"), 2, "--no-such-flag")
		refusedInOneLine(t, start("extra"), 2, "extra")
	})

	t.Run("config file", func(t *testing.T) {
		f := filepath.Join(t.TempDir(), "m.toml")
		if err := os.WriteFile(f, []byte("partitions = 3\nname = \"from-file\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		o := serve(t, "flag-wins", "--config", f)
		st := status(t, o.grpc)
		if len(st.Partitions) != 3 || st.Nodes[0].Name != "flag-wins" {
			t.Errorf("%+v", st)
		}
		o.stop()
	})

	t.Run("status", func(t *testing.T) {
		r := cli(t, nil, "cluster", "status", "--addr", s.grpc, "--json")
		if r.code != 0 || strings.Count(r.out, "\n") != 1 {
			t.Fatalf("%+v", r)
		}
		var st map[string]json.RawMessage
		if err := json.Unmarshal([]byte(r.out), &st); err != nil {
			t.Fatal(err)
		}
		keysAre(t, r.out, "cluster", "leader", "tick", "nodes", "partitions", "moves")
		var nodes, parts []json.RawMessage
		json.Unmarshal(st["nodes"], &nodes)
		json.Unmarshal(st["partitions"], &parts)
		if len(nodes) != 1 || len(parts) != 8 || string(st["moves"]) != "[]" {
			t.Fatalf("%s", r.out)
		}
		keysAre(t, string(nodes[0]), "name", "grpc", "gossip", "http", "zone", "state", "voter", "replicas", "primaries", "pg")
		keysAre(t, string(parts[0]), "id", "epoch", "primary", "replicas", "in_sync", "end_bytes")
		want := fmt.Sprintf(`{"name":"solo","grpc":%q,"gossip":%q,"http":%q,"zone":"z1","state":"alive","voter":true,"replicas":8,"primaries":8,"pg":%q}`, s.grpc, s.gossip, s.http, s.pg)
		if string(nodes[0]) != want {
			t.Errorf("node\n%s, want\n%s", nodes[0], want)
		}
		// A smaller cluster than --replicas says so.
		if text := cli(t, nil, "cluster", "status", "--addr", s.grpc); text.code != 0 || !strings.Contains(text.out, "1 of 3 replicas") {
			t.Errorf("%+v", text)
		}
	})

	t.Run("exit codes", func(t *testing.T) {
		at := []string{"--addr", s.grpc}
		run := func(args ...string) result { return cli(t, nil, append(args, at...)...) }
		refusedInOneLine(t, cli(t, nil, "nonsense"), 2, "nonsense")
		refusedInOneLine(t, run("send"), 2)
		refusedInOneLine(t, run("send", "a", "b", "c"), 2)
		refusedInOneLine(t, run("read"), 2)
		refusedInOneLine(t, run("sql", "--format", "xml", "-c", "SELECT 1"), 2, "xml")
		refusedInOneLine(t, run("read", "x", "--from", "yesterday"), 2, "yesterday")
		refusedInOneLine(t, run("cluster", "drain"), 2)
		refusedInOneLine(t, run("send", "nostream", "/dev/null"), 1, "nostream")
		refusedInOneLine(t, run("read", "nostream"), 1, "nostream")
		refusedInOneLine(t, run("cluster", "drain", "nobody"), 1, "nobody")
		refusedInOneLine(t, run("cluster", "remove", "nobody"), 1, "nobody")
		refusedInOneLine(t, run("cluster", "remove", "solo"), 1, "solo", "--force")
		refusedInOneLine(t, cli(t, nil, "sql", "--addr", reserve(t), "-c", "SELECT 1"), 1, "refused")
		// The second of two addresses answers, given in either way.
		for _, two := range [][]string{{"--addr", reserve(t) + "," + s.grpc}, {"--addr", reserve(t), "--addr", s.grpc}} {
			if r := cli(t, nil, append([]string{"sql", "--format", "csv", "-c", "SELECT 1 AS a"}, two...)...); r.code != 0 || r.out != "a\n1\n" {
				t.Errorf("%v: %+v", two, r)
			}
		}
	})

	t.Run("restart", func(t *testing.T) {
		before := status(t, s.grpc)
		s.stop()
		s.extra = append(s.extra, "--join", reserve(t)) // a folder of the cluster ignores it
		s.start()
		after := status(t, s.grpc)
		if before.Cluster != after.Cluster || len(after.Nodes) != 1 || after.Nodes[0].Name != "solo" {
			t.Errorf("before %+v, after %+v", before, after)
		}
	})
}

// keysAre checks which keys a JSON object has, and their order.
func keysAre(t *testing.T, object string, want ...string) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(object))
	dec.Token()
	var got []string
	for dec.More() {
		k, err := dec.Token()
		if err != nil {
			t.Fatalf("%v in %s", err, object)
		}
		got = append(got, fmt.Sprint(k))
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			t.Fatalf("%v in %s", err, object)
		}
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("keys %v, want %v", got, want)
	}
}
