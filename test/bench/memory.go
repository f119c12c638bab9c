package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/client"
	"github.com/millrace/millrace/record"
)

const (
	memoryBudget = 256 << 20
	memoryOver   = 10 // times the budget is what the state has to take
	memoryKeys   = 100_000
	memoryEvents = 500_000
	memoryPoints = 2_000
	memorySample = 100 * time.Millisecond
	memorySlow   = 30 * time.Second // for which slow clients take to read
	memoryGrowth = 20_000           // records that come while statements run
)

// memoryRun is a run of -memory, which samples how much memory the node has by what it is doing.
type memoryRun struct {
	*bench
	c *nodes
	d *memoryData

	state float64 // most of it so far, in bytes
	worst float64 // resident, of all phases, in bytes

	mu   sync.Mutex // also over c.procs
	most float64    // resident, of the phase, as sampled, in MB
	anon float64    // of that what isn't a file's
}

// memoryBounds measures the memory of a node with the least budget, whose state is ten times as large, in all it does; and
// checks all it says against rows that are known beforehand. That the state is that large, and that the node
// stays within its allowance, are checked too.
func (b *bench) memoryBounds() error {
	d := &memoryData{keys: memoryKeys, events: memoryEvents}
	if b.quick {
		d.keys, d.events = d.keys/20, d.events/20
	}
	b.extra = []string{"--memory", fmt.Sprint(memoryBudget)}
	c, err := b.cluster(1, partitionsFor(1))
	if err != nil {
		return err
	}
	defer func() { c.stop() }()
	m := &memoryRun{bench: b, c: c, d: d}
	ctx, cancel := context.WithCancel(b.ctx)
	sampled := make(chan struct{})
	go func() { defer close(sampled); m.sample(ctx) }()
	defer func() { cancel(); <-sampled }()
	for _, p := range []struct {
		name string
		run  func() (int64, error)
	}{
		{"load", m.load}, {"backfill", m.backfill}, {"points", m.points}, {"aggregates", m.aggregates}, {"ordered", m.ordered},
		{"whole", m.whole}, {"slow", m.slow}, {"subscribe", m.subscribe}, {"many", m.many}, {"restart", m.restart}, {"end", m.whole},
	} {
		if err := m.measure(p.name, p.run); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if err := b.report("memory_worst_rss", m.worst/1e6, "MB", map[string]any{"memory": memoryBudget / 1e6}); err != nil {
		return err
	}
	if !b.quick && m.state < memoryOver*memoryBudget {
		return fmt.Errorf("the views have %.0f MB of state, which isn't %d times the budget", m.state/1e6, memoryOver)
	}
	return nil
}

// measure runs a phase, and reports its memory, the state it left and how many rows were checked in it.
func (m *memoryRun) measure(name string, run func() (int64, error)) error {
	m.c.forgetPeak()
	m.mu.Lock()
	m.most, m.anon = 0, 0
	m.mu.Unlock()
	begin, cpu := time.Now(), m.c.cpu()
	checked, err := run()
	if err != nil {
		return err
	}
	state, disk, err := m.stateBytes()
	for client.Retryable(err) && m.ctx.Err() == nil { // it has much to do
		state, disk, err = m.stateBytes()
	}
	if err != nil {
		return err
	}
	peak := m.c.peakRSS()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state, m.worst = max(m.state, state), max(m.worst, peak)
	fmt.Printf("%-12s %4.0f s, CPU %4.0f s: peak RSS %.1f MiB, sampled %.1f (%.1f anonymous); state %.0f MB, on disk %.0f; %d rows checked\n",
		name, time.Since(begin).Seconds(), m.c.cpu()-cpu, peak/(1<<20), m.most*1e6/(1<<20), m.anon*1e6/(1<<20), state/1e6, disk/1e6, checked)
	return m.write(row{"memory_peak_rss", peak / 1e6, "MB", map[string]any{"phase": name, "memory": memoryBudget / 1e6,
		"state_mb": state / 1e6, "state_disk_mb": disk / 1e6, "checked": checked, "anonymous_mb": m.anon}})
}

func (m *memoryRun) sample(ctx context.Context) {
	tick := time.NewTicker(memorySample)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			m.mu.Lock()
			rss, anon := m.c.rss(), m.c.memory("RssAnon:")
			m.most, m.anon = max(m.most, rss), max(m.anon, anon)
			m.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// stateBytes is what the views say that their state takes, and what the folder of it does.
func (m *memoryRun) stateBytes() (state, disk float64, err error) {
	rows, err := m.c.client.Query(m.ctx, "SHOW VIEWS")
	if err != nil {
		return 0, 0, err
	}
	defer rows.Close()
	at := rows.Columns().Index("state_bytes")
	for rows.Next() {
		state += float64(rows.Values()[at].Int)
	}
	err = filepath.WalkDir(filepath.Join(argOf(m.c.procs[0].cmd.Args, "--data"), "state"), func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil // a file that has just been removed
		}
		if info, err := e.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				disk += float64(st.Blocks) * 512
			}
		}
		return nil
	})
	return state, disk, errors.Join(err, rows.Err())
}

// load makes views and fills them.
func (m *memoryRun) load() (int64, error) {
	_, err := m.c.client.Exec(m.ctx, "CREATE STREAM l (k BIGINT, i BIGINT, s BIGINT, txt TEXT) WITH (format = 'json'); CREATE STREAM r (k BIGINT, txt TEXT) WITH (format = 'json')")
	if err != nil {
		return 0, err
	}
	for _, v := range memoryViews[:len(memoryViews)-1] {
		if _, err := m.c.client.Exec(m.ctx, "CREATE MATERIALIZED VIEW "+v.name+" AS "+v.query); err != nil {
			return 0, err
		}
	}
	m.d.left = m.d.base()
	if err := m.d.send(m.ctx, m.c.client, 0, m.d.left); err != nil {
		return 0, err
	}
	return m.counts(memoryViews[:len(memoryViews)-1])
}

// backfill makes a view from the log, and one from events that are made.
func (m *memoryRun) backfill() (int64, error) {
	last := memoryViews[len(memoryViews)-1]
	if _, err := m.c.client.Exec(m.ctx, "CREATE MATERIALIZED VIEW "+last.name+" AS "+last.query); err != nil {
		return 0, err
	}
	if err := m.c.sources(m.ctx, []string{"bid"}, "", m.d.events); err != nil {
		return 0, err
	}
	if _, err := m.c.client.Exec(m.ctx, "CREATE MATERIALIZED VIEW bids AS "+nexmarkMemoryView); err != nil {
		return 0, err
	}
	if err := m.c.poll(m.ctx, "SHOW STREAMS", "bid", "records", records("bid", m.d.events)); err != nil {
		return 0, err
	}
	return m.counts(memoryViews)
}

// counts counts the rows of views, once they are done with what was sent.
func (m *memoryRun) counts(views []memoryView) (int64, error) {
	now := time.Now().UnixMicro()
	total := int64(0)
	for _, v := range views {
		err := m.c.poll(m.ctx, "SHOW VIEWS", v.name, "tick", now)
		if err != nil {
			return 0, err
		}
		n, err := numberOf(m.ctx, m.c, "SELECT count(*) FROM "+v.name)
		if err != nil {
			return 0, err
		}
		if n != v.rows(m.d) {
			return 0, fmt.Errorf("%s has %d rows, not %d", v.name, n, v.rows(m.d))
		}
		total += n
	}
	return total, nil
}

// rowsOf runs a statement and returns its rows.
func rowsOf(ctx context.Context, c *nodes, statement string) iter.Seq2[[]record.Value, error] {
	return func(yield func([]record.Value, error) bool) {
		rows, err := c.client.Query(ctx, statement)
		if err != nil {
			yield(nil, err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			if !yield(rows.Values(), nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(nil, err)
		}
	}
}

// numberOf returns the one number that a statement gives.
func numberOf(ctx context.Context, c *nodes, statement string) (n int64, err error) {
	for row, err := range rowsOf(ctx, c, statement) {
		if err != nil {
			return 0, err
		}
		n = row[0].Int
	}
	return n, nil
}

// points reads single rows.
func (m *memoryRun) points() (int64, error) {
	checked := int64(0)
	for n := range uint64(memoryPoints) {
		i := int64(mixed(n) % uint64(m.d.left))
		found := 0
		for row, err := range rowsOf(m.ctx, m.c, fmt.Sprintf("SELECT * FROM counted WHERE g = %d", i/2)) {
			if err != nil {
				return 0, err
			}
			if g, err := countedRow(m.d, row); err != nil || g != i/2 {
				return 0, fmt.Errorf("group %d asked for, %d came: %w", i/2, g, err)
			}
			found++
		}
		if found != 1 {
			return 0, fmt.Errorf("group %d is there %d times", i/2, found)
		}
		checked++
	}
	return checked, nil
}

// aggregates runs statements that read all rows and keep few.
func (m *memoryRun) aggregates() (int64, error) {
	n, total, least, most := m.d.totals()
	inTop := int64(0)
	for k := range m.d.keys {
		for _, i := range m.d.twins(k) {
			inTop += i
		}
	}
	for statement, want := range map[string][]string{
		"SELECT sum(n), sum(total), max(txt) FROM counted":                  {fmt.Sprint(n), fmt.Sprint(total), most},
		"SELECT count(*), sum(i), min(ltxt), max(ltxt) FROM joined":         {fmt.Sprint(m.d.base()), fmt.Sprint(m.d.base() * (m.d.base() - 1) / 2), least, most},
		"SELECT sum(n), sum(texts) FROM distinct_texts":                     {fmt.Sprint(n), fmt.Sprint(n)},
		"SELECT count(*), count(DISTINCT place) FROM topped":                {fmt.Sprint(toppedRows(m.d)), fmt.Sprint(memoryPlace)},
		"SELECT sum(i) FROM joined WHERE ltxt <> rtxt":                      {fmt.Sprint(inTop)},
		"SELECT count(*) FROM joined a WHERE ltxt LIKE '%-%' OR rtxt <> ''": {fmt.Sprint(m.d.base())},
	} {
		for row, err := range rowsOf(m.ctx, m.c, statement) {
			if err != nil {
				return 0, fmt.Errorf("%s: %w", statement, err)
			}
			for i := range want {
				if got := valueText(row[i]); got != want[i] {
					return 0, fmt.Errorf("%s: column %d is %.40s, not %.40s", statement, i+1, got, want[i])
				}
			}
		}
	}
	return 6, nil
}

// ordered runs statements with ORDER BY; those whose rows don't fit into the memory of a statement are refused.
func (m *memoryRun) ordered() (int64, error) {
	next := m.d.base()
	for row, err := range rowsOf(m.ctx, m.c, "SELECT k, i, ltxt, rtxt FROM joined ORDER BY i DESC LIMIT 1000") {
		if err != nil {
			return 0, err
		}
		if i, err := joinedRow(m.d, row); err != nil || i != next-1 {
			return 0, fmt.Errorf("record %d comes after %d: %w", i, next, err)
		}
		next--
	}
	checked, last := m.d.base()-next, ""
	for row, err := range rowsOf(m.ctx, m.c, "SELECT * FROM counted ORDER BY txt LIMIT 1000") {
		if err != nil {
			return 0, err
		}
		if _, err := countedRow(m.d, row); err != nil || string(row[3].Bytes) < last {
			return 0, fmt.Errorf("%.20q comes after %.20q: %w", row[3].Bytes, last, err)
		}
		last = string(row[3].Bytes)
		checked++
	}
	if m.quick {
		return checked, nil
	}
	for _, statement := range []string{"SELECT * FROM joined ORDER BY rtxt, i", "SELECT ltxt, count(*) FROM joined GROUP BY ltxt", "SELECT DISTINCT txt FROM topped",
		"SELECT a.i FROM joined a JOIN topped b ON a.ltxt = b.txt"} {
		if err := refused(m.ctx, m.c, statement); err != nil {
			return checked, err
		}
	}
	return checked, nil
}

// refused runs a statement that needs more memory than it may have.
func refused(ctx context.Context, c *nodes, statement string) error {
	for _, err := range rowsOf(ctx, c, statement) {
		if err == nil {
			continue
		}
		if !strings.Contains(err.Error(), "memory") {
			return fmt.Errorf("%s: %w", statement, err)
		}
		return nil
	}
	return fmt.Errorf("%s isn't refused for its memory", statement)
}

// whole reads all views, and checks each of their rows.
func (m *memoryRun) whole() (int64, error) {
	checked := int64(0)
	for _, v := range memoryViews {
		n, err := v.check(m.d, rowsOf(m.ctx, m.c, "SELECT * FROM "+v.name))
		if err != nil {
			return 0, err
		}
		checked += n
	}
	n, err := m.d.checkBids(rowsOf(m.ctx, m.c, "SELECT * FROM bids"))
	return checked + n, err
}

// slow reads a view for several clients that take their time, while records come.
func (m *memoryRun) slow() (int64, error) {
	return m.whileGrowing(func(ctx context.Context) (int64, error) {
		var g errgroup.Group
		joined := memoryViews[1]
		counts := make([]int64, 4)
		for i := range counts {
			g.Go(func() (err error) {
				rows := slowly(rowsOf(ctx, m.c, "SELECT * FROM joined"), int(joined.rows(m.d)))
				counts[i], err = joined.check(m.d, rows)
				return err
			})
		}
		err := g.Wait()
		return counts[0] + counts[1] + counts[2] + counts[3], err
	})
}

// slowly takes n rows in memorySlow.
func slowly(rows iter.Seq2[[]record.Value, error], n int) iter.Seq2[[]record.Value, error] {
	return func(yield func([]record.Value, error) bool) {
		taken := 0
		for row, err := range rows {
			if taken++; taken%(n/100+1) == 0 {
				time.Sleep(memorySlow / 100)
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

// whileGrowing runs do while records come that have keys of their own.
func (m *memoryRun) whileGrowing(do func(context.Context) (int64, error)) (int64, error) {
	more := m.d.left + min(memoryGrowth, m.d.base()/2)
	var checked int64
	then := *m.d
	g, ctx := errgroup.WithContext(m.ctx)
	g.Go(func() error { return then.send(ctx, m.c.client, then.left, more) })
	g.Go(func() (err error) { checked, err = do(ctx); return err })
	if err := g.Wait(); err != nil {
		return 0, err
	}
	m.d.left = more
	n, err := m.counts(memoryViews)
	return checked + n, err
}

// subscribe takes the first rows of subscriptions, while records come.
func (m *memoryRun) subscribe() (int64, error) {
	return m.whileGrowing(func(ctx context.Context) (int64, error) {
		var g errgroup.Group
		counts := make([]int64, 2)
		for i := range counts {
			g.Go(func() (err error) {
				joined := memoryViews[1]
				counts[i], err = joined.check(m.d, firstRows(rowsOf(ctx, m.c, "SUBSCRIBE TO joined"), joined.rows(m.d)))
				return err
			})
		}
		err := g.Wait()
		return counts[0] + counts[1], err
	})
}

// firstRows takes n rows of a subscription, and of each the view's columns.
func firstRows(rows iter.Seq2[[]record.Value, error], n int64) iter.Seq2[[]record.Value, error] {
	return func(yield func([]record.Value, error) bool) {
		for row, err := range rows {
			if err == nil {
				row = row[2:]
			}
			if n--; !yield(row, err) || n == 0 {
				return
			}
		}
	}
}

// many runs many statements at once, while records come. Some may be told to come back.
func (m *memoryRun) many() (int64, error) {
	return m.whileGrowing(func(ctx context.Context) (int64, error) {
		g, ctx := errgroup.WithContext(ctx)
		for _, statement := range slices.Repeat([]string{
			"SELECT count(*), sum(i), max(ltxt), min(rtxt) FROM joined", "SELECT * FROM topped ORDER BY txt LIMIT 3000", "SELECT sum(total), max(txt) FROM counted",
			"SELECT txt, count(*) FROM topped GROUP BY txt", "SELECT place, count(*), max(txt) FROM topped GROUP BY place", "SELECT * FROM counted ORDER BY n, txt",
		}, 2) {
			g.Go(func() error {
				for _, err := range rowsOf(ctx, m.c, statement) {
					if err != nil && !strings.Contains(err.Error(), "memory") {
						return fmt.Errorf("%s: %w", statement, err)
					}
				}
				return nil
			})
		}
		return 0, g.Wait()
	})
}

// restart kills the node and starts it again.
func (m *memoryRun) restart() (int64, error) {
	p := m.c.procs[0]
	if err := p.cmd.Process.Kill(); err != nil {
		return 0, err
	}
	_ = p.cmd.Wait() // it was killed
	args := slices.Clone(p.cmd.Args[1:])
	for i, a := range args {
		if a == "--listen" {
			args[i+1] = p.grpc // where the client looks for it
		}
	}
	again, err := m.spawn(args)
	if err != nil {
		said, _ := os.ReadFile(p.log)
		return 0, fmt.Errorf("%w; before it said: %s", err, said)
	}
	m.mu.Lock()
	m.c.procs[0] = again
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(m.ctx, stateWait)
	defer cancel()
	if err := m.c.inSync(ctx, 1); err != nil {
		return 0, err
	}
	return m.counts(memoryViews)
}
