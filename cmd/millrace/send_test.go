package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/leaks"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

func TestMain(m *testing.M) { leaks.Main(m) }

var finalLine = regexp.MustCompile(`^acknowledged (\d+) of (\d+) records, (\d+) rejected, in (\d+\.\d+) s \((\d+) records/s\), tick (\d+)\n$`)

// checkFinal checks the last line of send.
func checkFinal(t *testing.T, out string, acked, total, rejected int) {
	t.Helper()
	m := finalLine.FindStringSubmatch(out)
	if m == nil || m[1] != fmt.Sprint(acked) || m[2] != fmt.Sprint(total) || m[3] != fmt.Sprint(rejected) {
		t.Errorf("stdout %q, want %d of %d, %d rejected", out, acked, total, rejected)
	}
}

func TestSendJSON(t *testing.T) {
	n := startFake(t)
	in := "\xef\xbb\xbf{\"id\":1}\n\n  \r\n{\"id\":2}\r\n[1]\n5\n\"text\"\n{\"id\":3,\"id\":4}\n{\"id\":5}"
	code, out, errs := n.millrace(t, in, "send", "bids")
	if code != 0 || errs != "" {
		t.Fatalf("exit %d, stderr %q", code, errs)
	}
	checkFinal(t, out, 7, 7, 0)
	if got, want := n.appended(), "{\"id\":1}\n{\"id\":2}\n[1]\n5\n\"text\"\n{\"id\":3,\"id\":4}\n{\"id\":5}"; got != want {
		t.Fatalf("appended %q, want %q", got, want)
	}
	if !strings.HasSuffix(out, fmt.Sprintf("tick %d\n", n.tick)) {
		t.Errorf("stdout %q, tick %d", out, n.tick)
	}
}

func TestSendRejectsLines(t *testing.T) {
	n := startFake(t)
	n.maxRecord = 50
	in := strings.Join([]string{`{"id":1}`, `{"id":`, `{"id":3}`, `{"id":4} x`, `nonsense`, strings.Repeat("y", 200), `{"id":7,}`, `{"id":8}`, "{\"a\":\"\xff\"}"}, "\n")
	code, out, errs := n.millrace(t, in, "send", "bids", "-")
	if code != 1 {
		t.Errorf("exit %d", code)
	}
	checkFinal(t, out, 3, 9, 6)
	lines := strings.Split(strings.TrimSpace(errs), "\n")
	if len(lines) != 7 {
		t.Fatalf("stderr %q", errs)
	}
	for i, number := range []int{2, 4, 5, 6, 7, 9} {
		if !strings.HasPrefix(lines[i], fmt.Sprintf("millrace: line %d: ", number)) {
			t.Errorf("%q, want line %d", lines[i], number)
		}
	}
	if lines[6] != "millrace: 6 rejected (lines 2, 4-7, 9)" {
		t.Errorf("%q", lines[6])
	}
	if n.appended() != "{\"id\":1}\n{\"id\":3}\n{\"id\":8}" {
		t.Errorf("appended %q", n.appended())
	}
}

func TestSendJSONReport(t *testing.T) {
	n := startFake(t)
	code, out, errs := n.millrace(t, "{}\nbad\n{}\n", "send", "bids", "--json")
	if code != 1 {
		t.Errorf("exit %d", code)
	}
	var result map[string]float64
	if err := json.Unmarshal([]byte(out), &result); err != nil || strings.Count(out, "\n") != 1 {
		t.Fatalf("stdout %q: %v", out, err)
	}
	if len(result) != 4 || result["acknowledged"] != 2 || result["rejected"] != 1 || result["tick"] != float64(n.tick) || result["seconds"] <= 0 {
		t.Errorf("stdout %q", out)
	}
	first, _, _ := strings.Cut(errs, "\n")
	if !strings.HasPrefix(first, `{"line":2,"error":"`) {
		t.Errorf("stderr %q", errs)
	}
}

// TestSendJSONProgress: while it goes on, a report each 100 ms.
func TestSendJSONProgress(t *testing.T) {
	n := startFake(t)
	t.Setenv(addrEnv, n.addr)
	r, w := io.Pipe()
	var out, errs lockedBuilder
	ended := make(chan int)
	go func() { ended <- run([]string{"send", "bids", "--json"}, r, &out, &errs) }()
	io.WriteString(w, "{}\n{}\n")
	waitFor(t, func() bool { return strings.Count(errs.String(), `{"acknowledged":2,"rejected":0,"seconds":`) >= 2 })
	io.WriteString(w, "{}\n")
	w.Close()
	if code := <-ended; code != 0 || !strings.HasPrefix(out.String(), `{"acknowledged":3,`) {
		t.Fatalf("exit %d, %q", code, out.String())
	}
}

func TestSendCSVIntoJSON(t *testing.T) {
	n := startFake(t)
	in := `name,ID,price,ok,at,doc,extra
plain,1,1.50,true,2026-01-01 00:00:00,"{""a"":1}",x
"with ""quotes"", and
a line",+2,.5,F,1700000000000000,[1],

,,,,,,
"",abc,NaN,maybe,soon,not json,"007"
`
	code, out, errs := n.millrace(t, in, "send", "bids", "--format", "csv")
	if code != 0 || !strings.Contains(errs, `column "extra"`) || strings.Count(errs, "\n") != 1 {
		t.Errorf("exit %d, stderr %q", code, errs)
	}
	checkFinal(t, out, 4, 4, 0)
	want := `{"name":"plain","id":1,"price":1.50,"ok":true,"at":"2026-01-01 00:00:00","doc":{"a":1},"extra":"x"}
{"name":"with \"quotes\", and\na line","id":2,"price":0.5,"ok":false,"at":1700000000000000,"doc":[1],"extra":null}
{"name":null,"id":null,"price":null,"ok":null,"at":null,"doc":null,"extra":null}
{"name":"","id":"abc","price":"NaN","ok":"maybe","at":"soon","doc":"not json","extra":"007"}`
	if got := n.appended(); got != want {
		t.Errorf("appended\n%s\nwant\n%s", got, want)
	}
	for _, line := range strings.Split(n.appended(), "\n") {
		if !json.Valid([]byte(line)) {
			t.Errorf("%s is not JSON", line)
		}
	}
}

func TestSendCSVIntoCSV(t *testing.T) {
	n := startFake(t)
	path := filepath.Join(t.TempDir(), "in.CSV")
	write := func(text string) {
		n.values = nil
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("id,name,price\n1,a,\"2\"\n2,\"b,\"\"c\",\n")
	if code, _, errs := n.millrace(t, "", "send", "table", path); code != 0 || n.appended() != "1,a,\"2\"\n2,\"b,\"\"c\"," {
		t.Errorf("exit %d, stderr %q, appended %q", code, errs, n.appended())
	}
	write("price,name\n2,a\n,\"\"\n3,\"x,y\"\n")
	if code, _, errs := n.millrace(t, "", "send", "table", path); code != 0 || n.appended() != ",a,2\n,\"\",\n,\"x,y\",3" {
		t.Errorf("exit %d, stderr %q, appended %q", code, errs, n.appended())
	}
	// JSON into CSV goes by way of the columns, so what doesn't decode can't be sent.
	write("{\"name\":\"x,y\",\"id\":7}\n{\"id\":\"seven\"}\n{\"price\":1.50}\n")
	code, out, errs := n.millrace(t, "", "send", "table", path, "--format", "json")
	if code != 1 || n.appended() != "7,\"x,y\",\n,,1.50" || !strings.Contains(errs, "line 2: can't be turned into csv") {
		t.Errorf("exit %d, stderr %q, appended %q", code, errs, n.appended())
	}
	checkFinal(t, out, 2, 3, 1)
}

// TestSendMalformedCSV: one stray quote costs one line, wherever it would be closed.
func TestSendMalformedCSV(t *testing.T) {
	n := startFake(t)
	in := "id,name,price\n1,a,1\n2,\"open,2\n3,c,3\n4,d\n5,\"e\",5\n6,f\"f,6\n7,\"g\"x,7\n8,\xff,8\n9,h,9,9\n10,\"multi\nline\",10\n12,\"open again\n"
	code, out, errs := n.millrace(t, in, "send", "table", "--format", "csv")
	if code != 1 || n.appended() != "1,a,1\n3,c,3\n5,\"e\",5\n10,\"multi\nline\",10" {
		t.Errorf("exit %d, appended %q", code, n.appended())
	}
	checkFinal(t, out, 4, 11, 7)
	if !strings.HasSuffix(errs, "millrace: 7 rejected (lines 3, 5, 7-10, 13)\n") {
		t.Errorf("stderr %q", errs)
	}
}

func TestSendCSVHeader(t *testing.T) {
	n := startFake(t)
	for in, want := range map[string]string{
		"1,2,3\n":          "must name the columns",
		"id,id\n":          `"id" is there twice`,
		"id,\"name\n1,2\n": "malformed CSV",
	} {
		code, out, errs := n.millrace(t, in, "send", "table", "--format", "csv")
		if code != 1 || out != "" || !strings.Contains(errs, want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: exit %d, stdout %q, stderr %q", in, code, out, errs)
		}
	}
	code, out, _ := n.millrace(t, "", "send", "table", "--format", "csv")
	if code != 0 {
		t.Errorf("empty input: exit %d", code)
	}
	checkFinal(t, out, 0, 0, 0)
}

func TestSendGzip(t *testing.T) {
	n := startFake(t)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	fmt.Fprint(z, "id,name\n1,a\n2,b\n")
	z.Close()
	path := filepath.Join(t.TempDir(), "in.csv.gz")
	if err := os.WriteFile(path, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := n.millrace(t, "", "send", "table", path)
	if code != 0 || n.appended() != "1,a,\n2,b," {
		t.Errorf("exit %d, stderr %q, appended %q", code, errs, n.appended())
	}
	checkFinal(t, out, 2, 2, 0)
	if err := os.WriteFile(path, packed.Bytes()[:packed.Len()-9], 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := n.millrace(t, "", "send", "table", path); code != 1 || !strings.Contains(errs, "unexpected EOF") {
		t.Errorf("cut short: exit %d, stderr %q", code, errs)
	}
}

// TestSendNotAcknowledged: the cluster takes nothing; the timeout ends it, and every line of the file is named.
func TestSendNotAcknowledged(t *testing.T) {
	n := startFake(t)
	n.stuck = true
	path := filepath.Join(t.TempDir(), "in.jsonl")
	if err := os.WriteFile(path, []byte(strings.Repeat("{}\n", 1000)+"bad\n"+strings.Repeat("{}\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := n.millrace(t, "", "send", "bids", path, "--timeout", "300ms", "--rate", "2500")
	if code != 1 || !strings.Contains(errs, "1 rejected (line 1001), 2000 not acknowledged (lines 1-1000, 1002-2001): not acknowledged within 300ms") {
		t.Errorf("exit %d, stderr %q", code, errs)
	}
	checkFinal(t, out, 0, 2001, 1)
}

func TestSendRefused(t *testing.T) {
	n := startFake(t)
	n.refuse = fault.New(fault.Invalid, "the stream is closed for the night")
	code, out, errs := n.millrace(t, "{}\n{}\n", "send", "bids")
	if code != 1 || errs != "millrace: 2 rejected (lines 1-2): the stream is closed for the night\n" {
		t.Errorf("exit %d, stderr %q", code, errs)
	}
	checkFinal(t, out, 0, 2, 2)
	code, out, errs = n.millrace(t, "{}\n", "send", "bid")
	if code != 1 || out != "" || errs != "millrace: unknown stream \"bid\"; did you mean \"bids\"?\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
	}
}

// TestSendInterrupted interrupts a send that waits for input: what was sent is acknowledged and counted.
func TestSendInterrupted(t *testing.T) {
	n := startFake(t)
	r, w := io.Pipe()
	defer w.Close() // ends the reader that is left behind
	var out, errs lockedBuilder
	a := &app{stdin: r, stdout: &out, stderr: &errs}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- a.send(ctx, []string{n.addr}, "bids", "-", sendOptions{timeout: time.Minute, compression: "none", batch: 1 << 16})
	}()
	io.WriteString(w, "{}\n{}\n{}\n")
	waitFor(t, func() bool { return n.appended() == "{}\n{}\n{}" })
	cancel()
	if err := <-ended; err == nil || err.Error() != "interrupted after line 3; what follows was not sent" {
		t.Errorf("%v", err)
	}
	checkFinal(t, out.String(), 3, 3, 0)
}

func TestPacer(t *testing.T) {
	for _, rate := range []float64{3, 100, 12_345} {
		synctest.Test(t, func(t *testing.T) {
			p := newPacer(rate)
			begun := time.Now()
			count := int(rate * 2)
			for range count {
				if err := p.wait(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if took := time.Since(begun); took < 1600*time.Millisecond || took > 2100*time.Millisecond {
				t.Errorf("%d records at %g/s took %s", count, rate, took)
			}
			time.Sleep(time.Minute) // after a pause it doesn't catch up
			begun = time.Now()
			for range count {
				p.wait(t.Context())
			}
			if took := time.Since(begun); took < 1500*time.Millisecond {
				t.Errorf("after a pause, %d records at %g/s took %s", count, rate, took)
			}
		})
	}
}

func TestLineSet(t *testing.T) {
	var s lineSet
	for _, l := range []int64{5, 6, 7, 1, 2, 10, 9, 8} {
		s.add(l)
	}
	if got := s.String(); got != "lines 1-2, 5-10" || s.count != 8 {
		t.Errorf("%s, %d", got, s.count)
	}
	var one lineSet
	one.add(3)
	if got := one.String(); got != "line 3" {
		t.Error(got)
	}
	var many lineSet
	for i := range int64(maxRanges + 5) {
		many.add(2 * i)
	}
	if got := many.String(); !strings.HasSuffix(got, " and 5 more ranges up to line 2008") {
		t.Error(got[len(got)-60:])
	}
}

// FuzzLineSource feeds any input to the readers of lines: every line is one record, one rejection, or empty.
func FuzzLineSource(f *testing.F) {
	f.Add([]byte("id,name\n1,a\n2,\"b\nc\"\n3,\"d\n\n4,e\"\"\n"), true, 20)
	f.Add([]byte("{}\n{\"a\":1}\r\n\n[1\nx"), false, 3)
	f.Fuzz(func(t *testing.T, in []byte, asCSV bool, limit int) {
		if limit < 1 || limit > 1<<12 {
			return
		}
		def := &millracev1.Stream{Name: "s", Format: "json", Columns: []*millracev1.Column{{Name: "id", Type: "bigint"}, {Name: "name", Type: "text"}}}
		format := "json"
		if asCSV {
			format = "csv"
		}
		src, err := newLineSource(format, newLineReader(bytes.NewReader(in), limit), def, func(string, ...any) {})
		if err != nil {
			return
		}
		last, lines := int64(0), int64(bytes.Count(in, []byte("\n"))+1)
		for {
			value, line, err := src.next()
			if isEOF(err) {
				return
			}
			if line <= last || line > lines {
				t.Fatalf("line %d after %d, of %d", line, last, lines)
			}
			last = line
			if bad, ok := err.(*lineError); err != nil && !ok {
				t.Fatalf("line %d: %v, %v", line, err, bad)
			}
			if err == nil && !json.Valid(value) {
				t.Fatalf("line %d makes %q", line, value)
			}
		}
	})
}
