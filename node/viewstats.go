package node

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/sql"
)

// viewTotals is a view's figures over all partitions.
type viewTotals struct {
	state, lastError              string
	progress                      float64
	covered                       uint32
	tick                          uint64
	rows, errors, late, stateSize uint64
	stages                        []*internalv1.StageStats // by number
	indexes                       map[uint64]*internalv1.IndexStats
}

func (v *viewTotals) add(s *internalv1.ViewStats) {
	if v.covered == 0 || s.Tick < v.tick {
		v.tick = s.Tick
	}
	// The worst state of any node is the view's.
	if rank := map[string]int{"": 0, "live": 1, "backfilling": 2, "failed": 3}; rank[s.State] > rank[v.state] {
		v.state = s.State
	}
	v.progress += s.Progress * float64(s.Partitions)
	v.covered += s.Partitions
	v.rows += s.Rows
	v.errors += s.Errors
	v.late += s.Late
	v.stateSize += s.StateBytes
	if s.LastError != "" {
		v.lastError = s.LastError
	}
	for i, g := range s.Stages {
		if i == len(v.stages) {
			v.stages = append(v.stages, &internalv1.StageStats{Stage: g.Stage, Tick: g.Tick, Slowest: g.Slowest, Source: g.Source})
		}
		addStage(v.stages[i], g)
	}
	for _, x := range s.Indexes {
		if v.indexes == nil {
			v.indexes = map[uint64]*internalv1.IndexStats{}
		}
		sum := v.indexes[x.Index]
		if sum == nil {
			sum = &internalv1.IndexStats{Index: x.Index}
			v.indexes[x.Index] = sum
		}
		sum.Built += x.Built
		sum.Bytes += x.Bytes
	}
}

func addStage(sum, g *internalv1.StageStats) {
	if g.Tick < sum.Tick {
		sum.Tick, sum.Slowest = g.Tick, g.Slowest
	}
	sum.RowsIn += g.RowsIn
	sum.RowsOut += g.RowsOut
	sum.StateBytes += g.StateBytes
	sum.KeptBytes += g.KeptBytes
	sum.QueuedBytes += g.QueuedBytes
	sum.Backlog += g.Backlog
	sum.Blocked = sum.Blocked || g.Blocked
	sum.OpRows = addUp(sum.OpRows, g.OpRows)
	sum.OpBytes = addUp(sum.OpBytes, g.OpBytes)
}

func addUp(sum, more []uint64) []uint64 {
	for i, n := range more {
		if i == len(sum) {
			sum = append(sum, 0)
		}
		sum[i] += n
	}
	return sum
}

func addViews(totals map[uint64]*viewTotals, st *internalv1.StatsResponse) {
	for _, v := range st.Views {
		if v.Partitions == 0 {
			continue
		}
		if totals[v.View] == nil {
			totals[v.View] = &viewTotals{}
		}
		totals[v.View].add(v)
	}
}

// viewFigures asks all nodes for the views' figures; of the view detail more of them.
func (n *Node) viewFigures(ctx context.Context, detail uint64) map[uint64]*viewTotals {
	totals := map[uint64]*viewTotals{}
	for _, st := range n.allStats(ctx, &internalv1.StatsRequest{View: detail}, statsTimeout) {
		addViews(totals, st)
	}
	return totals
}

// viewStatus is what SHOW VIEWS and EXPLAIN ANALYZE say of a view.
type viewStatus struct {
	*viewTotals
	lag      any // milliseconds; nil: unknown while a partition has not begun
	waitsFor any // nil: it keeps up
}

// lagging is how far a view may be behind before it is said why, in ticks.
const lagging = 1_000_000

// status judges a view's figures.
func (n *Node) status(c *catalog, d *internalv1.ViewDef, v *viewTotals) viewStatus {
	if v == nil {
		v = &viewTotals{}
	}
	out := viewStatus{viewTotals: v}
	if missing := c.partitions() - int(v.covered); missing > 0 && v.state != "failed" {
		v.state = "backfilling" // parts of it are on their way to another node
		out.waitsFor = fmt.Sprintf("%d of %d partitions, which no node answers for now", missing, c.partitions())
	}
	if v.covered > 0 {
		v.progress /= float64(c.partitions())
	}
	last, _ := n.coord.LastTick()
	if v.tick > 0 {
		out.lag = max(0, (int64(last)-int64(v.tick))/int64(time.Millisecond/time.Microsecond))
	}
	if out.waitsFor == nil && v.state != "failed" && (v.state == "backfilling" || int64(last)-int64(v.tick) > lagging) {
		if o := c.objects[ids.StreamID(d.Id)]; o != nil && o.Plan != nil {
			if w := v.bottleneck(o.Plan, uint64(last)); w != "" {
				out.waitsFor = w
			}
		}
	}
	return out
}

// bottleneck says which stage holds a view back, and why: the first one that is nearly as far behind as the whole.
func (v *viewTotals) bottleneck(p *plan.Plan, last uint64) string {
	behind := func(tick uint64) uint64 { return last - min(last, tick) }
	for i, g := range v.stages {
		if i >= len(p.Stages) || behind(g.Tick) < behind(v.tick)/2 {
			continue
		}
		where := fmt.Sprintf("stage %d (partition %d)", i, g.Slowest)
		switch {
		case g.Blocked:
			return where + ": there is no room on the disk"
		case g.QueuedBytes > 0:
			return fmt.Sprintf("%s: %s of rows have come and are worked on", where, sizeText(g.QueuedBytes))
		case g.Source && g.Backlog > 0:
			return fmt.Sprintf("%s: %d records of %s are yet to be read", where, g.Backlog, scansOf(&p.Stages[i]))
		case len(scansOf(&p.Stages[i])) > 0:
			return fmt.Sprintf("%s: it waits for %s", where, scansOf(&p.Stages[i]))
		default:
			return where + ": it waits for rows of the stages before"
		}
	}
	return ""
}

// scansOf names what a stage reads; empty: other stages.
func scansOf(s *plan.Stage) string {
	out := ""
	for i := range s.Ops {
		if sc := s.Ops[i].Scan; sc != nil {
			if out != "" {
				out += " and "
			}
			out += string(sc.Kind) + " " + sc.Name
		}
	}
	return out
}

// sizeText writes a number of bytes as PostgreSQL's pg_size_pretty does.
func sizeText(n uint64) string {
	units := []string{"bytes", "kB", "MB", "GB", "TB"}
	i := 0
	for ; n >= 10*1024 && i < len(units)-1; i++ {
		n = (n + 512) / 1024
	}
	return fmt.Sprintf("%d %s", n, units[i])
}

func (s *session) showViews(ctx context.Context) (*table, error) {
	if err := s.n.sync(ctx); err != nil {
		return nil, err
	}
	c := s.n.catalog()
	totals := s.n.viewFigures(ctx, 0)
	t := newTable(showFields("views")...)
	for _, d := range c.state.Views {
		if d.Table != 0 || d.ReplacedBy != 0 {
			continue
		}
		v := s.n.status(c, d, totals[d.Id])
		if d.Replaces != 0 && v.state != "failed" {
			v.state = "replacing"
		}
		t.add(d.Name, v.state, v.progress, int64(v.tick), v.lag, int64(v.rows), int64(v.errors), orNull(v.lastError), int64(v.late),
			int64(v.stateSize), v.waitsFor)
	}
	return t, nil
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// explainView tells how a view is doing, stage by stage and operator by operator.
func (s *session) explainView(ctx context.Context, o *sql.Object) ([]string, error) {
	c := s.n.catalog()
	d := c.views[ids.StreamID(o.ID)]
	if d == nil {
		return nil, s.n.gone("view", &plan.Scan{Object: o.ID, Name: o.Name})
	}
	v := s.n.status(c, d, s.n.viewFigures(ctx, o.ID)[o.ID])
	last, _ := s.n.coord.LastTick()
	behind := func(tick uint64) string {
		return fmt.Sprintf("%d ms behind", (int64(last)-min(int64(last), int64(tick)))/1000)
	}
	head := fmt.Sprintf("%s %s: %s, %d rows at tick %d, %s, state %s", o.Kind, o.Name, v.state, v.rows, v.tick, behind(v.tick), sizeText(v.stateSize))
	lines := []string{head}
	if v.waitsFor != nil {
		lines = append(lines, fmt.Sprintf("it waits for %s", v.waitsFor))
	}
	if v.state == "backfilling" {
		lines = append(lines, fmt.Sprintf("%.1f %% of its history is read", 100*v.progress))
	}
	if v.errors > 0 || v.late > 0 || v.lastError != "" {
		lines = append(lines, fmt.Sprintf("%d errors, %d late rows, last error: %s", v.errors, v.late, v.lastError))
	}
	op := func(stage, op int) string {
		if stage >= len(v.stages) || op >= len(v.stages[stage].OpRows) {
			return ""
		}
		g := v.stages[stage]
		text := fmt.Sprintf("%d rows", g.OpRows[op])
		if op < len(g.OpBytes) && g.OpBytes[op] > 0 {
			text += ", state " + sizeText(g.OpBytes[op])
		}
		return text
	}
	stage := func(i int) []string {
		if i >= len(v.stages) {
			return nil
		}
		g := v.stages[i]
		out := fmt.Sprintf("tick %d, %s; %d rows in, %d out", g.Tick, behind(g.Tick), g.RowsIn, g.RowsOut)
		if g.Source {
			if g.Backlog > 0 {
				out += fmt.Sprintf("; %d records to read", g.Backlog)
			}
			return []string{out}
		}
		out += fmt.Sprintf("; state %s, rows and changes %s", sizeText(g.StateBytes), sizeText(g.KeptBytes))
		if g.QueuedBytes > 0 {
			out += fmt.Sprintf("; %s wait to be worked on", sizeText(g.QueuedBytes))
		}
		return []string{out}
	}
	return append(lines, sql.ExplainWith(o.Plan, op, stage)...), nil
}
