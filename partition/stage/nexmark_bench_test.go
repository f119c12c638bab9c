package stage

import (
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/dataflow"
	"github.com/millrace/millrace/datagen"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
	"github.com/millrace/millrace/storage"
)

const nexmarkSchema = `
CREATE STREAM person (id BIGINT, name TEXT, "emailAddress" TEXT, "creditCard" TEXT, city TEXT, state TEXT, "dateTime" TIMESTAMPTZ, extra TEXT,
    WATERMARK FOR "dateTime" AS "dateTime" - INTERVAL '4 seconds');
CREATE STREAM auction (id BIGINT, "itemName" TEXT, description TEXT, "initialBid" BIGINT, reserve BIGINT, "dateTime" TIMESTAMPTZ, expires TIMESTAMPTZ,
    seller BIGINT, category BIGINT, extra TEXT, WATERMARK FOR "dateTime" AS "dateTime" - INTERVAL '4 seconds');
CREATE STREAM bid (auction BIGINT, bidder BIGINT, price BIGINT, channel TEXT, url TEXT, "dateTime" TIMESTAMPTZ, extra TEXT,
    WATERMARK FOR "dateTime" AS "dateTime" - INTERVAL '4 seconds');
`

// nexmarkCatalog holds the three streams.
type nexmarkCatalog map[string]*sql.Object

func (c nexmarkCatalog) Lookup(name string) (*sql.Object, bool) { o, ok := c[name]; return o, ok }
func (c nexmarkCatalog) Names() []string                        { return []string{"person", "auction", "bid"} }

func newNexmarkCatalog(t testing.TB) nexmarkCatalog {
	t.Helper()
	stmts, err := sql.Parse(nexmarkSchema)
	if err != nil {
		t.Fatal(err)
	}
	c := nexmarkCatalog{}
	for i, s := range stmts {
		create := s.(*sql.CreateStream)
		def, err := sql.StreamOf(create)
		if err != nil {
			t.Fatal(err)
		}
		def.Id = uint64(i + 1)
		o := &sql.Object{Kind: sql.ObjectStream, ID: def.Id, Name: create.Name, Stream: def}
		for _, col := range def.Columns {
			typ, _ := record.ParseType(col.Type)
			o.Columns = append(o.Columns, record.Field{Name: col.Name, Type: typ})
		}
		c[create.Name] = o
	}
	return c
}

// nexmarkQuery is a query with the number of rows that it has over the first 100,000 events; -1: not known.
type nexmarkQuery struct {
	name, text string
	rows       int64
}

func nexmarkQueries(t testing.TB) []nexmarkQuery {
	t.Helper()
	file, err := os.ReadFile("testdata/nexmark.sql")
	if err != nil {
		t.Fatal(err)
	}
	head := regexp.MustCompile(`(?m)^-- (q\d+) (\d+|-)$`)
	text := string(file)
	at := head.FindAllStringSubmatchIndex(text, -1)
	var out []nexmarkQuery
	for i, m := range at {
		end := len(text)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		rows, err := strconv.ParseInt(text[m[4]:m[5]], 10, 64)
		if err != nil {
			rows = -1
		}
		body := strings.TrimSuffix(strings.TrimSpace(text[m[1]:end]), ";")
		out = append(out, nexmarkQuery{text[m[2]:m[3]], body, rows})
	}
	return out
}

// nexmarkRun drives the stages of one view over generated events on the caller's goroutine, tick by tick: sources,
// exchanges and targets, with their state in a store. What the runtime does besides (queues, feeds, progress) is left
// out.
type nexmarkRun struct {
	t         testing.TB
	v         *view
	parts     int
	store     *storage.Store
	sources   [][]*nexmarkSource // by source plan, partition
	targets   [][]*nexmarkTarget // by target plan, partition
	clocks    []*clock
	kinds     map[ids.StreamID]datagen.Kind
	last      map[ids.StreamID][]int64 // highest event time, by partition
	making    time.Duration            // CPU time of the generator
	cfg       Config
	highWater int // bytes of all tables
	record    func(target int, leaf int, d *record.Delta)
}

type nexmarkSource struct {
	plan  *sourcePlan
	frag  *dataflow.Fragment
	split *splitter
	gen   *datagen.Nexmark
	made  *record.Delta // what gen makes: dateTime, then columns
	in    *record.Delta
	next  int64 // offset
}

type nexmarkTarget struct {
	plan   *targetPlan
	p      ids.PartitionID
	frag   *dataflow.Fragment
	table  *stateTable
	rows   *rowStore
	deltas deltaLog
}

func newNexmarkRun(t testing.TB, q nexmarkQuery, parts int, rate int64, cfg Config, store *storage.Store) *nexmarkRun {
	t.Helper()
	catalog := newNexmarkCatalog(t)
	stmts, err := sql.Parse("CREATE MATERIALIZED VIEW v AS " + q.text)
	if err != nil {
		t.Fatalf("%s: %v", q.name, err)
	}
	p, _, err := sql.PlanView(stmts[0].(*sql.CreateView), catalog)
	if err != nil {
		t.Fatalf("%s: %v", q.name, err)
	}
	raw, err := plan.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	r := &nexmarkRun{t: t, parts: parts, store: store, cfg: cfg, kinds: map[ids.StreamID]datagen.Kind{}, last: map[ids.StreamID][]int64{}}
	streams := map[ids.StreamID]*internalv1.StreamDef{}
	for name, o := range catalog {
		streams[ids.StreamID(o.ID)] = &internalv1.StreamDef{Stream: o.Stream, CreatedTick: 1}
		r.kinds[ids.StreamID(o.ID)], _ = datagen.ParseKind(name)
		r.last[ids.StreamID(o.ID)] = make([]int64, parts)
	}
	if r.v, err = compileView(&internalv1.ViewDef{Id: 100, Name: "v", Plan: raw, CreatedTick: 1}, streams, nil, parts); err != nil {
		t.Fatalf("%s: %v", q.name, err)
	}
	for _, s := range r.v.sources {
		var list []*nexmarkSource
		for p := range parts {
			list = append(list, r.newSource(s, ids.PartitionID(p), rate))
		}
		r.sources = append(r.sources, list)
	}
	for _, tp := range r.v.targets {
		var list []*nexmarkTarget
		for p := range parts {
			list = append(list, r.newTarget(tp, ids.PartitionID(p)))
		}
		r.targets = append(r.targets, list)
		var c *clock
		if len(tp.marks) > 0 {
			c = newClock(tp, tp.inflows(0))
		}
		r.clocks = append(r.clocks, c)
	}
	return r
}

func (r *nexmarkRun) newSource(s *sourcePlan, p ids.PartitionID, rate int64) *nexmarkSource {
	out := &nexmarkSource{plan: s, split: newSplitter(s.exchange, r.parts)}
	if s.log == nil {
		return out
	}
	columns := []string{"dateTime"}
	for _, c := range s.log.columns {
		if !strings.HasPrefix(c, "_") && c != "dateTime" {
			columns = append(columns, c)
		}
	}
	var err error
	if out.gen, err = datagen.NewNexmark(r.kinds[s.log.id], rate, columns); err != nil {
		r.t.Fatal(err)
	}
	out.made = record.NewDelta(out.gen.Schema(), 0)
	if !s.log.marks {
		dec, err := record.NewDecoder(s.log.stream, s.log.columns)
		if err != nil {
			r.t.Fatal(err)
		}
		out.in = record.NewDelta(dec.Schema(), 0)
	}
	if s.ops != nil {
		if out.frag, err = dataflow.New(s.ops, dataflow.Env{Mode: dataflow.Live, Partition: p, AppendOnly: s.appends}); err != nil {
			r.t.Fatal(err)
		}
	}
	return out
}

func (r *nexmarkRun) newTarget(tp *targetPlan, p ids.PartitionID) *nexmarkTarget {
	prefix := func(space byte) []byte {
		if tp.last {
			return storage.StateKey(r.v.id, p, space, nil)
		}
		return storage.StagePrefix(r.v.id, p, byte(tp.index), space)
	}
	t := &nexmarkTarget{plan: tp, p: p, table: newStateTable(r.store, prefix(spaceState)), rows: newRowStore(r.store, prefix(spaceRows), tp.codec),
		deltas: deltaLog{prefix: prefix(spaceDeltas), p: p}}
	t.table.complete, t.rows.table.complete = true, true
	if tp.codec.layout == appended {
		t.deltas.rows = t.rows
	}
	var err error
	if t.frag, err = dataflow.New(tp.ops, dataflow.Env{Mode: dataflow.Live, State: t.table, Partition: p, AppendOnly: tp.appends}); err != nil {
		r.t.Fatal(err)
	}
	return t
}

func threadTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(1, &u) // RUSAGE_THREAD
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// read fills a source's in with events from <= number < to.
func (r *nexmarkRun) read(s *nexmarkSource, p int, from, to uint64, tick ids.Tick) {
	began := threadTime()
	s.made.Reset()
	s.gen.Generate(from, to, s.made)
	r.making += threadTime() - began
	log, n := s.plan.log, s.made.N
	last := r.last[log.id]
	times := s.made.Cols[0].Ints
	if s.in != nil {
		s.in.Reset()
		next := 1
		for i, name := range log.columns {
			c := &s.in.Cols[i]
			switch name {
			case "dateTime":
				*c = s.made.Cols[0]
			case plan.ColPartition:
				for range n {
					c.AppendInt(int64(p))
				}
			case plan.ColOffset:
				for j := range n {
					c.AppendInt(s.next + int64(j))
				}
			case plan.ColTick:
				for range n {
					c.AppendInt(int64(tick))
				}
			case plan.ColWatermark:
				before := last[p]
				for _, at := range times {
					if before == 0 {
						c.AppendNull()
					} else {
						c.AppendInt(before - log.stream.WatermarkDelayUs)
					}
					before = max(before, at)
				}
			default:
				*c = s.made.Cols[next]
				next++
			}
		}
		s.in.N = n
	}
	s.next += int64(n)
	if n > 0 {
		last[p] = max(last[p], times[n-1])
	}
}

// deliver gives a source's rows to those that read it.
func (r *nexmarkRun) deliver(source, p int, d *record.Delta, want []bool) {
	s := r.sources[source][p]
	for _, part := range s.split.split(ids.PartitionID(p), d, want) {
		for t, tp := range r.v.targets {
			for _, in := range tp.inputs {
				if in.source != s.plan || in.leaf < 0 {
					continue
				}
				if r.record != nil {
					r.record(t, in.leaf, part.delta)
				}
				if err := r.targets[t][part.target].frag.Push(in.leaf, part.delta); err != nil {
					r.t.Fatal(err)
				}
			}
		}
	}
}

// tick runs the events of one tick.
func (r *nexmarkRun) tick(from, to uint64, tick ids.Tick) {
	all := slices.Repeat([]bool{true}, r.parts)
	before := map[ids.StreamID][]int64{}
	for id, l := range r.last {
		before[id] = slices.Clone(l)
	}
	for i, list := range r.sources {
		if r.v.sources[i].log == nil {
			continue
		}
		r.last[r.v.sources[i].log.id] = slices.Clone(before[r.v.sources[i].log.id]) // another source may have read the same events
		for p, s := range list {
			n := to - from
			r.read(s, p, from+n*uint64(p)/uint64(r.parts), from+n*uint64(p+1)/uint64(r.parts), tick)
			switch {
			case s.in == nil:
			case s.frag == nil:
				r.deliver(i, p, s.in, all)
			default:
				if err := s.frag.Push(s.plan.leaf, s.in); err != nil {
					r.t.Fatal(err)
				}
				out, err := s.frag.EndTick(tick, dataflow.NoMarks)
				if err != nil {
					r.t.Fatal(err)
				}
				r.deliver(i, p, out, all)
			}
		}
	}
	for i, list := range r.targets {
		marks := r.marks(i, tick)
		for p, t := range list {
			out, err := t.frag.EndTick(tick, marks)
			if err != nil {
				r.t.Fatal(err)
			}
			if out.N > 0 {
				if t.plan.last {
					var kept tickDelta
					own := t.plan.codec.layout == appended
					if own {
						out = t.frag.Detach()
					}
					if kept, err = t.rows.apply(tick, out, own); kept.tick != 0 {
						t.deltas.keep(kept)
					} else {
						t.deltas.add(tick, out)
					}
				} else {
					out = t.frag.Detach()
					t.deltas.addRows(tick, out)
				}
				if err != nil {
					r.t.Fatal(err)
				}
			}
			for s, sp := range r.v.sources {
				if sp.log == nil && sp.upStage == t.plan.index && out.N > 0 {
					r.deliver(s, p, out, all)
				}
			}
		}
	}
	for _, list := range r.targets {
		for _, t := range list {
			if err := t.table.release(); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	r.settle(tick, false)
}

// marks steps a stage's clock.
func (r *nexmarkRun) marks(target int, tick ids.Tick) dataflow.Marks {
	c := r.clocks[target]
	if c == nil {
		return dataflow.NoMarks
	}
	tp := r.v.targets[target]
	for i, in := range tp.inflows(0) {
		if l := tp.inputs[in.input].source.log; l != nil {
			at := r.last[l.id][in.p]
			c.observe(i, position{lastTick: tick, hasEvent: at != 0, maxEvent: at})
		}
	}
	c.step(tick, nil)
	return c.current
}

// settle stores what is dirty as the runtime does.
func (r *nexmarkRun) settle(tick ids.Tick, all bool) {
	total, warm, memory := 0, 0, 0
	for _, list := range r.targets {
		for _, t := range list {
			total += t.table.dirtyBytes + t.rows.dirtyBytes()
			memory += t.table.memory() + t.rows.table.memory()
			if t.table.memory()+t.rows.table.memory() > arenaChunk {
				warm++
			}
		}
	}
	r.highWater = max(r.highWater, memory)
	for _, list := range r.targets {
		for _, t := range list {
			t.table.limit = int(r.cfg.CacheBytes/int64(max(1, warm))) / 2
			if t.plan.last && t.plan.codec.layout == weighted {
				t.table.limit /= 2
				t.rows.table.limit = t.table.limit
			}
			dirty := t.table.dirtyBytes + t.rows.dirtyBytes()
			if all || int64(dirty) > r.cfg.DirtyBytes/2 || int64(total) > r.cfg.DirtyBytes && dirty > arenaChunk || t.table.young.bytes+t.rows.table.young.bytes > 2*(t.table.limit+t.rows.table.limit)+dirty {
				r.flush(t, tick)
			}
			t.deltas.forget(int(r.cfg.RecentBytes) / r.parts)
		}
	}
}

func (r *nexmarkRun) flush(t *nexmarkTarget, tick ids.Tick) {
	b := r.store.NewBatchOf(t.table.dirtyBytes + t.rows.dirtyBytes() + t.deltas.unstored())
	defer b.Close()
	t.table.write(b)
	t.rows.write(b)
	low := maxTick
	if !t.plan.last {
		low = tick
	}
	t.deltas.write(b, tick, r.cfg.RetainTicks, r.cfg.RetainBytes/int64(r.parts), low)
	if err := r.store.Commit(b, false); err != nil {
		r.t.Fatal(err)
	}
	t.table.written(false)
	t.rows.written(false)
	t.deltas.written()
}

// count returns how many rows the view has.
func (r *nexmarkRun) count() (n int64) {
	for _, t := range r.targets[len(r.targets)-1] {
		n += t.rows.count
	}
	return n
}

func (r *nexmarkRun) run(events, perTick uint64) {
	tick := ids.Tick(1_000_000)
	for from := uint64(0); from < events; from += perTick {
		tick += 20_000
		r.tick(from, min(events, from+perTick), tick)
	}
	r.settle(tick, true)
}

// TestNexmark compares the number of rows that each query has with what another system counted.
func TestNexmark(t *testing.T) {
	for _, q := range nexmarkQueries(t) {
		t.Run(q.name, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.CacheBytes, cfg.DirtyBytes = 1<<20, 1<<20
			r := newNexmarkRun(t, q, 4, 3000, cfg, memStore(t))
			r.run(100_000, 7_000)
			if got := r.count(); q.rows >= 0 && got != q.rows {
				t.Errorf("%d rows, want %d", got, q.rows)
			}
		})
	}
}

// BenchmarkNexmark runs each query over NEXMARK_EVENTS (1,000,000) events of ten seconds of event time, in ticks of
// NEXMARK_TICK (20,000). The metrics are events for each second of CPU time of the process, with and without that of
// the generator.
func BenchmarkNexmark(b *testing.B) {
	number := func(name string, otherwise uint64) uint64 {
		n, err := strconv.ParseUint(os.Getenv(name), 10, 64)
		if err != nil {
			return otherwise
		}
		return n
	}
	events, perTick := number("NEXMARK_EVENTS", 1_000_000), number("NEXMARK_TICK", 20_000)
	for _, q := range nexmarkQueries(b) {
		b.Run(q.name, func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for range b.N {
				b.StopTimer()
				o := storage.DefaultOptions()
				o.Logger = quiet()
				store, err := storage.OpenState(b.TempDir(), o)
				if err != nil {
					b.Fatal(err)
				}
				r := newNexmarkRun(b, q, benchPartitions, int64(events/10), DefaultConfig(), store)
				cpu, driver := cpuTime(), threadTime()
				b.StartTimer()
				r.run(events, perTick)
				b.StopTimer()
				used, own := cpuTime()-cpu, threadTime()-driver
				b.ReportMetric(float64(events)/used.Seconds(), "events/cpu-s")
				b.ReportMetric(float64(events)/(used-r.making).Seconds(), "net-events/cpu-s")
				b.ReportMetric(float64(events)/(own-r.making).Seconds(), "net-events/thread-s")
				b.ReportMetric(float64(r.highWater)/(1<<20), "state-MiB")
				b.ReportMetric(float64(r.count()), "rows")
				if err := store.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
