package datagen

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/millrace/millrace/record"
)

// digest is that of events 0 to 99,999 at 10,000 events a second, as JSON lines.
const digest = "2a71231c709e39001f040d1f690152b21571455f467810fe4b92b74c03500e20"

func generator(t testing.TB, kind Kind, names ...string) *Nexmark {
	t.Helper()
	g, err := NewNexmark(kind, 10_000, names)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestDigest(t *testing.T) {
	g := generator(t, All)
	h := sha256.New()
	var line []byte
	for n := range uint64(100_000) {
		line = append(g.AppendJSON(line[:0], n), '\n')
		h.Write(line)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != digest {
		t.Errorf("digest %s, want %s", got, digest)
	}
}

// TestVectors compares with the events that the specification prints.
func TestVectors(t *testing.T) {
	vectors, err := os.ReadFile("testdata/nexmark.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(vectors)), "\n")
	g := generator(t, All)
	for i, n := range []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1_000_000, 1_000_001, 1_000_049} {
		if got := string(g.AppendJSON(nil, n)); got != lines[i] {
			t.Errorf("event %d:\n%s\nwant\n%s", n, got, lines[i])
		}
	}
}

// TestColumns holds that columns, whichever are asked for and however a range is cut, are those of the JSON.
func TestColumns(t *testing.T) {
	for _, kind := range []Kind{Person, Auction, Bid, All} {
		full := generator(t, kind)
		schema := full.Schema()
		whole := record.NewDelta(schema, 0)
		full.Generate(0, 3000, whole)
		for i, f := range schema {
			g := generator(t, kind, strings.ToUpper(f.Name))
			part := record.NewDelta(g.Schema(), 0)
			for _, cut := range [][2]uint64{{0, 1}, {1, 1}, {1, 777}, {777, 2500}, {2500, 3000}} {
				g.Generate(cut[0], cut[1], part)
			}
			if part.N != whole.N || part.Cols[0].N != whole.N {
				t.Fatalf("kind %d, column %s: %d rows, want %d", kind, f.Name, part.N, whole.N)
			}
			for r := range whole.N {
				got := string(record.AppendJSON(nil, &part.Cols[0], r))
				if want := string(record.AppendJSON(nil, &whole.Cols[i], r)); got != want {
					t.Fatalf("kind %d, column %s, row %d: %s, want %s", kind, f.Name, r, got, want)
				}
			}
		}
		r := 0
		for n := range uint64(3000) {
			if !full.has(n) {
				continue
			}
			line := string(full.AppendJSON(nil, n))
			for i, f := range schema {
				c := &whole.Cols[i]
				if c.Null(r) == strings.Contains(line, `"`+f.Name+`":`) {
					t.Fatalf("event %d: column %s is NULL: %v", n, f.Name, c.Null(r))
				}
				if f.Type == record.Text && !c.Null(r) && !strings.Contains(line, `:"`+string(c.At(r))+`"`) {
					t.Fatalf("event %d: column %s is %q, not in %s", n, f.Name, c.At(r), line)
				}
			}
			r++
		}
	}
}

func TestErrors(t *testing.T) {
	if _, err := NewNexmark(Bid, 0, nil); err == nil {
		t.Error("rate 0 is taken")
	}
	if _, err := NewNexmark(Bid, 1, []string{"city"}); err == nil {
		t.Error("a bid has a city")
	}
	if _, err := ParseKind("bids"); err == nil {
		t.Error("there is a kind called bids")
	}
}

func benchmark(b *testing.B, kind Kind, names ...string) {
	g := generator(b, kind, names...)
	d := record.NewDelta(g.Schema(), 4096)
	rows, n := 0, uint64(0)
	for b.Loop() {
		d.Reset()
		g.Generate(n, n+4096, d)
		n += 4096
		rows += d.N
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds()/1e6, "Mrows/s")
}

func BenchmarkBidsThree(b *testing.B) { benchmark(b, Bid, "auction", "price", "dateTime") }
func BenchmarkBidsAll(b *testing.B)   { benchmark(b, Bid) }
func BenchmarkBidsOne(b *testing.B)   { benchmark(b, Bid, "auction") }
func BenchmarkAuctions(b *testing.B)  { benchmark(b, Auction) }
func BenchmarkJSON(b *testing.B) {
	g := generator(b, All)
	var line []byte
	n := uint64(0)
	for b.Loop() {
		line = g.AppendJSON(line[:0], n)
		n++
	}
}
