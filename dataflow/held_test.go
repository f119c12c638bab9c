package dataflow

import (
	"errors"
	"fmt"
	"testing"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// TestGroupsAreHeld counts what the groups of an ad-hoc aggregate take: no less than their keys and values, as they come,
// and the fragment ends when that isn't allowed.
func TestGroupsAreHeld(t *testing.T) {
	const groups, wide = 20_000, 100
	s := record.Schema{{Name: "k", Type: record.Text}, {Name: "v", Type: record.Text}}
	agg := aggOp(0, s, &plan.Aggregate{Phase: plan.AggSingle, Keys: []int{0}, Aggs: []plan.Agg{newAgg(plan.AggMax, 1, record.Text)}})
	push := func(limit int64) (held int64, err error) {
		f, err := New([]plan.Op{scanOp(s), agg}, Env{Mode: AdHoc, Hold: func(n int64) error {
			if n <= 0 {
				t.Errorf("%d bytes more", n)
			}
			if held += n; held > limit {
				return errTooMuch
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < groups; at += 1000 {
			d := record.NewDelta(s, 1000)
			for i := range 1000 {
				d.Cols[0].AppendString(fmt.Sprintf("%0*d", wide, at+i))
				d.Cols[1].AppendString(fmt.Sprintf("%0*d", wide, i))
			}
			d.N = 1000
			if err := f.Push(0, d); err != nil {
				return held, err
			}
		}
		return held, nil
	}
	held, err := push(1 << 40)
	if err != nil {
		t.Fatal(err)
	}
	if least, most := int64(2*groups*wide), int64(12*groups*wide); held < least || held > most {
		t.Errorf("%d bytes are held by groups of %d", held, least)
	}
	if held, err = push(100_000); !errors.Is(err, errTooMuch) {
		t.Errorf("%d bytes are held, and the error is %v", held, err)
	}
}

var errTooMuch = errors.New("too much")
