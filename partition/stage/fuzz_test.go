package stage

import (
	"bytes"
	"testing"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/storage"
)

// FuzzDeltaBlock reads stored blocks of output deltas, whatever they hold.
func FuzzDeltaBlock(f *testing.F) {
	store := memStore(f)
	l := &deltaLog{prefix: storage.StateKey(1, 2, spaceDeltas, nil), p: 2}
	d := record.NewDelta(record.Schema{{Name: "n", Type: record.BigInt}}, 1)
	d.Cols[0].AppendInt(7)
	d.N = 1
	l.add(5, d)
	l.add(9, d)
	b := store.NewBatch()
	l.write(b, 9, 100, 1000, maxTick)
	if err := store.Commit(b, false); err != nil {
		f.Fatal(err)
	}
	b.Close()
	v, closer, err := store.Get(l.key(5, 9))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Clone(v))
	_ = closer.Close()
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, block []byte) {
		for len(block) > 0 {
			d, rest, err := cutDelta(block)
			if err != nil {
				return
			}
			if len(rest)+len(d.raw) >= len(block) {
				t.Fatalf("%d bytes became %d and %d", len(block), len(d.raw), len(rest))
			}
			block = rest
		}
	})
}

// FuzzStoredRow decodes stored rows of each layout, whatever they hold: an error or one row (or a block of
// them), and all columns as long.
func FuzzStoredRow(f *testing.F) {
	out := record.Schema{{Name: "k", Type: record.Text}, {Name: "n", Type: record.BigInt}}
	codecs := []*rowCodec{
		newRowCodec(&plan.Plan{Output: out, Key: []int{0}}),
		{layout: weighted, schema: out, all: []int{0, 1}},
		{layout: appended, schema: out, all: []int{0, 1}},
	}
	d := record.NewDelta(out, 1)
	d.Cols[0].AppendString("key")
	d.Cols[1].AppendInt(-5)
	d.N = 1
	f.Add(codecs[0].appendKey(nil, d, 0), record.AppendRow(nil, d, codecs[0].rest, 0))
	f.Add(codecs[1].appendKey(nil, d, 0), []byte{2})
	f.Add(make([]byte, 16), record.MarshalDelta(nil, d))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		for _, c := range codecs {
			d := record.NewDelta(out, 0)
			if c.layout != keyed {
				d.Weights = []int64{}
			}
			if err := c.decode(key, value, d); err != nil {
				continue
			}
			if c.layout != appended && d.N != 1 || d.Cols[0].N != d.N || d.Cols[1].N != d.N {
				t.Fatalf("layout %d: %d rows, columns of %d and %d", c.layout, d.N, d.Cols[0].N, d.Cols[1].N)
			}
		}
	})
}

// FuzzPosition checks that positions survive their message.
func FuzzPosition(f *testing.F) {
	f.Add(uint64(1), uint64(2), uint64(3), true, int64(-4))
	f.Fuzz(func(t *testing.T, offset, through, last uint64, has bool, highest int64) {
		p := position{ids.Offset(offset), ids.Tick(through), ids.Tick(last), has, highest}
		if got := positionOf(p.proto()); got != p {
			t.Fatalf("%+v became %+v", p, got)
		}
	})
}
