package dataflow

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// randomFrame returns a frame; ranged: distances in the order's column are possible.
func randomFrame(rng *rand.Rand, ranged record.Type) plan.Frame {
	f := plan.Frame{Mode: []string{"rows", "range", "groups"}[rng.IntN(3)]}
	bound := func() plan.FrameBound {
		b := plan.FrameBound{Offset: int64(rng.IntN(7) - 3)}
		if f.Mode == "range" {
			switch ranged {
			case record.BigInt, record.Double:
			case record.TimestampTZ:
				b.Interval, b.Offset = record.Interval{Micros: b.Offset * 30 * microsPerSecond}, 0
			default:
				b.Offset = 0
			}
		}
		return b
	}
	f.Start, f.End = bound(), bound()
	switch rng.IntN(5) {
	case 0:
		f.Start = plan.FrameBound{Unbounded: true}
	case 1:
		f.End = plan.FrameBound{Unbounded: true}
	case 2:
		f.Start, f.End = plan.FrameBound{Unbounded: true}, plan.FrameBound{}
	}
	return f
}

func (w *world) randomWindow() *plan.Window {
	rng := w.rng
	p := &plan.Window{Keys: [][]int{nil, {colKey}, {colKey, colKey2}}[rng.IntN(3)]}
	ranged := record.Unknown
	for range rng.IntN(3) {
		c := []int{colTime, colInt, colFloat, colText, colFlag}[rng.IntN(5)]
		p.Order = append(p.Order, plan.SortKey{Col: c, Desc: rng.IntN(2) == 0, NullsFirst: rng.IntN(2) == 0})
	}
	if len(p.Order) == 1 {
		ranged = w.schema[p.Order[0].Col].Type
	}
	number := func() []record.Value {
		return []record.Value{{Type: record.BigInt, Int: int64(rng.IntN(5) - 1), Null: rng.IntN(12) == 0}}
	}
	for range 1 + rng.IntN(5) {
		f := plan.WindowFunc{Type: record.BigInt, Frame: randomFrame(rng, ranged)}
		switch rng.IntN(8) {
		case 0:
			f.Name = []string{"row_number", "rank", "dense_rank"}[rng.IntN(3)]
		case 1:
			f.Name, f.Type = []string{"percent_rank", "cume_dist"}[rng.IntN(2)], record.Double
		case 2:
			f.Name, f.Const = "ntile", number()
		case 3:
			f.Name, f.Args, f.Type = []string{"lag", "lead"}[rng.IntN(2)], []int{colText}, record.Text
			if rng.IntN(2) == 0 {
				f.Const = number()
			}
			if rng.IntN(2) == 0 {
				f.Args = append(f.Args, colText)
			}
		case 4:
			f.Name, f.Args = []string{"first_value", "last_value", "nth_value"}[rng.IntN(3)], []int{colInt}
			if f.Name == "nth_value" {
				f.Const = number()
			}
		default:
			a := w.randomAggregate(false, true)
			for len(a.Aggs) == 0 {
				a = w.randomAggregate(false, true)
			}
			f.Name, f.Agg = "agg", &a.Aggs[0]
			f.Type = f.Agg.Type
		}
		p.Funcs = append(p.Funcs, f)
	}
	return p
}

// modelWindow computes a window over rows in the plainest way.
func (w *world) modelWindow(p *plan.Window, ticks [][]row) zset {
	there := map[string]*row{}
	for _, tick := range ticks {
		for _, r := range tick {
			id := string(w.rowBytes(r))
			if there[id] == nil {
				there[id] = &row{r.values, 0}
			}
			there[id].weight += r.weight
		}
	}
	parts := map[string][]row{}
	for _, r := range there {
		var id []byte
		for _, k := range p.Keys {
			id = record.AppendOrderedValue(id, r.values[k])
		}
		for range r.weight {
			parts[string(id)] = append(parts[string(id)], row{r.values, 1})
		}
	}
	out := zset{}
	for _, rows := range parts {
		compare := func(a, b row) int {
			for _, k := range p.Order {
				if d := compareSorted(a.values[k.Col], b.values[k.Col], k); d != 0 {
					return d
				}
			}
			return 0
		}
		slices.SortFunc(rows, func(a, b row) int {
			if d := compare(a, b); d != 0 {
				return d
			}
			return bytes.Compare(w.rowBytes(a), w.rowBytes(b))
		})
		for i := range rows {
			var text []string
			for _, v := range rows[i].values {
				text = append(text, valueText(v))
			}
			for k := range p.Funcs {
				text = append(text, w.modelFunc(p, &p.Funcs[k], rows, i, compare))
			}
			out[strings.Join(text, "|")]++
		}
	}
	return out
}

func (w *world) rowBytes(r row) []byte {
	var cols []int
	for c := range w.schema {
		cols = append(cols, c)
	}
	return record.AppendRow(nil, deltaOf(w.schema, []row{r}), cols, 0)
}

func (w *world) modelFunc(p *plan.Window, f *plan.WindowFunc, rows []row, i int, compare func(a, b row) int) string {
	n := len(rows)
	before, peers, groups := 0, 0, map[int]int{}
	group := 0
	for j := range rows {
		if j > 0 && compare(rows[j-1], rows[j]) != 0 {
			group++
		}
		groups[j] = group
		switch d := compare(rows[j], rows[i]); {
		case d < 0:
			before++
		case d == 0:
			peers++
		}
	}
	number, null := int64(1), false
	if len(f.Const) > 0 {
		number, null = f.Const[0].Int, f.Const[0].Null
	}
	var frame []row
	for j := range rows {
		if w.inFrame(p, f, rows, i, j, groups, true) && w.inFrame(p, f, rows, i, j, groups, false) {
			frame = append(frame, rows[j])
		}
	}
	double := func(v float64) string { return valueText(record.Value{Type: record.Double, Float: v}) }
	switch f.Name {
	case "row_number":
		return fmt.Sprint(i + 1)
	case "rank":
		return fmt.Sprint(before + 1)
	case "dense_rank":
		return fmt.Sprint(groups[i] + 1)
	case "percent_rank":
		if n == 1 {
			return "0"
		}
		return double(float64(before) / float64(n-1))
	case "cume_dist":
		return double(float64(before+peers) / float64(n))
	case "ntile":
		if null || number <= 0 {
			return "NULL"
		}
		// Deal the rows out.
		bucket, left := int64(1), 0
		for j := 0; ; j++ {
			if left == 0 {
				left = n / int(number)
				if int(bucket) <= n%int(number) {
					left++
				}
				if j > 0 {
					bucket++
					left = n / int(number)
					if int(bucket) <= n%int(number) {
						left++
					}
				}
			}
			if j == i {
				return fmt.Sprint(bucket)
			}
			left--
		}
	case "lag", "lead":
		at := i + int(number)
		if f.Name == "lag" {
			at = i - int(number)
		}
		switch {
		case null:
			return "NULL"
		case at >= 0 && at < n:
			return valueText(rows[at].values[f.Args[0]])
		case len(f.Args) > 1:
			return valueText(rows[i].values[f.Args[1]])
		}
		return "NULL"
	case "agg":
		return modelAggregate(w.t, f.Agg, frame, int64(len(frame)))
	}
	at := 0
	switch f.Name {
	case "last_value":
		at = len(frame) - 1
	case "nth_value":
		if at = int(number) - 1; null {
			at = -1
		}
	}
	if at < 0 || at >= len(frame) {
		return "NULL"
	}
	return valueText(frame[at].values[f.Args[0]])
}

// inFrame tells whether row j is on the inner side of the start or end of row i's frame.
func (w *world) inFrame(p *plan.Window, f *plan.WindowFunc, rows []row, i, j int, groups map[int]int, start bool) bool {
	b := f.Frame.End
	if start {
		b = f.Frame.Start
	}
	if b.Unbounded {
		return true
	}
	side := func(d int64) bool { return start && d >= 0 || !start && d <= 0 }
	switch f.Frame.Mode {
	case "rows":
		return side(int64(j-i) - b.Offset)
	case "groups":
		return side(int64(groups[j]-groups[i]) - b.Offset)
	}
	if b.Offset == 0 && b.Interval == (record.Interval{}) {
		return side(int64(groups[j] - groups[i]))
	}
	k := p.Order[0]
	x, y := rows[i].values[k.Col], rows[j].values[k.Col]
	if x.Null {
		return side(int64(groups[j] - groups[i]))
	}
	if y.Null {
		return side(int64(sign(int64(groups[j]-groups[i])) * 1_000_000))
	}
	limit := x
	step := b.Offset
	if k.Desc {
		step = -step
	}
	switch x.Type {
	case record.Double:
		limit.Float += float64(step)
	case record.TimestampTZ:
		micros := b.Interval.Micros
		if k.Desc {
			micros = -micros
		}
		limit.Int += micros
	default:
		sum := x.Int + step
		if (sum > x.Int) != (step > 0) && step != 0 {
			sum = math.MaxInt64
			if step < 0 {
				sum = math.MinInt64
			}
		}
		limit.Int = sum
	}
	d := record.Compare(y, limit)
	if k.Desc {
		d = -d
	}
	return side(int64(d))
}

// TestWindow compares window functions with the model after each tick, with restarts and rows that are taken back.
func TestWindow(t *testing.T) {
	randomSeed(t, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t, rng, rng.IntN(3) > 0)
		p := w.randomWindow()
		op := plan.Op{Kind: plan.OpWindow, Inputs: []int{0}, Window: p, Schema: append(record.Schema{}, w.schema...)}
		for i := range p.Funcs {
			op.Schema = append(op.Schema, record.Field{Name: fmt.Sprint("w", i), Type: p.Funcs[i].Type})
		}
		w.drive([]plan.Op{scanOp(w.schema), op}, w.ticks, none, func(tick int, sum zset) {
			if want := w.modelWindow(p, w.ticks[:tick+1]); sum.String() != want.String() {
				got, should := strings.Split(sum.String(), "\n"), strings.Split(want.String(), "\n")
				got = slices.DeleteFunc(got, func(s string) bool { return slices.Contains(should, s) })
				should = slices.DeleteFunc(should, func(s string) bool { return strings.Contains(sum.String(), s) })
				t.Fatalf("%+v, after tick %d:\n%s\nwant:\n%s", p, tick, strings.Join(got, "\n"), strings.Join(should, "\n"))
			}
		})
	})
}
