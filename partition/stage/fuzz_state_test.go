package stage

import (
	"bytes"
	"testing"

	"github.com/millrace/millrace/dataflow"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// stateQueries are queries whose stages keep every kind of state.
var stateQueries = []string{
	`SELECT a.id, b.price FROM auction AS a LEFT JOIN bid AS b ON b.auction = a.id AND b.price > a.reserve`,
	`SELECT b.auction, b.price FROM bid AS b JOIN auction AS a ON a.id = b.auction AND b."dateTime" BETWEEN a."dateTime" AND a.expires`,
	`SELECT id FROM auction WHERE seller NOT IN (SELECT bidder FROM bid)`,
	`SELECT auction, price, place FROM (SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS place FROM bid) AS x WHERE place <= 3`,
	`SELECT auction, n, place FROM (SELECT auction, n, rank() OVER (ORDER BY n DESC) AS place FROM (SELECT auction, count(*) AS n FROM bid GROUP BY auction) AS c) AS x WHERE place <= 3`,
	`SELECT bidder, count(*) AS n, window_start, window_end FROM SESSION(bid, "dateTime", INTERVAL '10 seconds') GROUP BY bidder, window_start, window_end`,
	`SELECT auction, max(price) AS p, window_start, window_end FROM HOP(bid, "dateTime", INTERVAL '2 seconds', INTERVAL '10 seconds') GROUP BY auction, window_start, window_end`,
	`SELECT count(DISTINCT bidder) AS b, count(DISTINCT channel) AS c, approx_count_distinct(url) AS u, avg(price) AS p, stddev(price) AS s, min(channel) AS m FROM bid`,
	`SELECT auction, percentile_cont(0.5) WITHIN GROUP (ORDER BY price) AS p, string_agg(channel, ',' ORDER BY price) AS s FROM bid GROUP BY auction`,
	`SELECT max(n) AS n FROM (SELECT auction, count(*) AS n FROM bid GROUP BY auction) AS x`,
	`SELECT auction, price, lag(price) OVER (PARTITION BY auction ORDER BY "dateTime") AS before, sum(price) OVER (PARTITION BY auction ORDER BY "dateTime") AS total FROM bid`,
	`SELECT auction FROM bid INTERSECT SELECT id FROM auction`,
}

// storedStage is a stage with what it has stored after one tick, and the rows of the next.
type storedStage struct {
	plan   *targetPlan
	keys   [][]byte
	values [][]byte
	rows   []stageRows
	tick   ids.Tick
	marks  dataflow.Marks
}

type stageRows struct {
	leaf int
	d    *record.Delta
}

func storedStages(t testing.TB) (out []*storedStage) {
	for _, text := range stateQueries {
		r := newNexmarkRun(t, nexmarkQuery{name: text, text: text}, 1, 100, DefaultConfig(), memStore(t))
		r.tick(0, 2000, 1_000_000)
		list := make([]*storedStage, len(r.targets))
		for i, targets := range r.targets {
			s := &storedStage{plan: r.v.targets[i], tick: 1_020_000, marks: dataflow.NoMarks}
			err := targets[0].table.Scan(nil, nil, func(k, v []byte) (bool, error) {
				s.keys, s.values = append(s.keys, bytes.Clone(k)), append(s.values, bytes.Clone(v))
				return len(s.keys) < 512, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			list[i] = s
		}
		r.record = func(target, leaf int, d *record.Delta) {
			list[target].rows = append(list[target].rows, stageRows{leaf, copyDelta(d)})
		}
		r.tick(2000, 3000, 1_020_000)
		for i, c := range r.clocks {
			if c != nil {
				list[i].marks = c.current
			}
		}
		for _, s := range list {
			if len(s.keys) > 0 {
				out = append(out, s)
			}
		}
	}
	return out
}

// FuzzOperatorState damages one entry of what a stage's operators have stored and runs a tick over it: an error, or
// rows, never a panic.
func FuzzOperatorState(f *testing.F) {
	stages := storedStages(f)
	for i, s := range stages {
		for _, e := range []int{0, len(s.keys) / 2, len(s.keys) - 1} {
			f.Add(uint8(i), uint16(e), s.values[e])
			f.Add(uint8(i), uint16(e), append([]byte{1, 0xff, 0xff, 0xff, 0xff, 0x0f}, s.values[e]...))
			f.Add(uint8(i), uint16(e), s.values[e][:len(s.values[e])/2])
		}
	}
	f.Fuzz(func(t *testing.T, stage uint8, entry uint16, value []byte) {
		s := stages[int(stage)%len(stages)]
		st := &dataflow.MemState{}
		for i, k := range s.keys {
			v := s.values[i]
			if i == int(entry)%len(s.keys) {
				v = value
			}
			if err := st.Set(k, v); err != nil {
				t.Fatal(err)
			}
		}
		frag, err := dataflow.New(s.plan.ops, dataflow.Env{Mode: dataflow.Live, State: st, AppendOnly: s.plan.appends})
		if err != nil {
			return
		}
		for _, in := range s.rows {
			if frag.Push(in.leaf, in.d) != nil {
				return
			}
		}
		if _, err := frag.EndTick(s.tick, s.marks); err != nil {
			return
		}
		far := dataflow.Marks{Watermark: 1 << 60, Horizon: 1 << 60} // everything is over, and forgotten
		_, _ = frag.EndTick(s.tick+1, far)
	})
}
