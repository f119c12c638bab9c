package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/millrace/millrace/record"
)

// progress is how far the replay is.
type progress struct {
	mu        sync.Mutex
	begin     time.Time
	total     int
	acked     int
	lastTick  uint64
	next      int
	simulated time.Time
}

func (p *progress) start(total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begin, p.total = time.Now(), total
}

func (p *progress) acknowledge(n int, tick uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acked += n
	p.lastTick = max(p.lastTick, tick)
}

func (p *progress) at(i int, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next, p.simulated = i+1, t
}

func (p *progress) half() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total > 0 && p.next >= p.total/2
}

func (p *progress) tick() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lastTick
}

// notes is what happened, latest last.
type notes struct {
	mu    sync.Mutex
	lines []string
}

func (n *notes) add(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, fmt.Sprintf(format, args...))
}

func (n *notes) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.lines...)
}

// screen shows the demo's state.
type screen interface {
	line(format string, args ...any) // stays
	frame(f *frame)                  // replaces the one before, on a terminal
	interval() time.Duration
	close()
}

// frame is one picture of the cluster.
type frame struct {
	acked, total     int
	rate             float64
	simulated        time.Time
	busiest, routes  [][]string
	latePerMinute    []int64 // of the last minutes, oldest first
	nodes            []string
	notes            []string
	elapsed, toReply time.Duration
}

// show draws frames until the replay has ended.
func (d *demo) show(ctx context.Context, ended <-chan struct{}) error {
	every := time.NewTicker(d.screen.interval())
	defer every.Stop()
	for {
		select {
		case <-ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-every.C:
			f, err := d.look(ctx)
			if err != nil {
				return err
			}
			d.screen.frame(f)
		}
	}
}

// look asks the views what they say now.
func (d *demo) look(ctx context.Context) (*frame, error) {
	d.sent.mu.Lock()
	f := &frame{acked: d.sent.acked, total: d.sent.total, simulated: d.sent.simulated, elapsed: time.Since(d.begin)}
	if took := time.Since(d.sent.begin).Seconds(); d.sent.total > 0 && took > 0 {
		f.rate = float64(f.acked) / took
	}
	d.sent.mu.Unlock()
	begin := time.Now()
	hour := f.simulated.Add(-time.Hour).Truncate(time.Hour).Format(time.RFC3339)
	var err error
	if f.busiest, err = d.table(ctx, "SELECT origin, departures, round(mean_delay, 1) FROM departures WHERE hour = TIMESTAMPTZ '"+hour+
		"' ORDER BY departures DESC, origin LIMIT 5"); err != nil {
		return nil, err
	}
	if f.routes, err = d.table(ctx, "SELECT origin || '-' || destination, flights, round(mean_delay, 1) FROM routes WHERE flights >= 20 "+
		"ORDER BY mean_delay DESC, origin LIMIT 5"); err != nil {
		return nil, err
	}
	since := f.simulated.Add(-time.Hour).Format(time.RFC3339)
	rows, err := d.client.Query(ctx, "SELECT late FROM late_flights WHERE minute > TIMESTAMPTZ '"+since+"' AND minute <= TIMESTAMPTZ '"+
		f.simulated.Format(time.RFC3339)+"' ORDER BY minute")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		f.latePerMinute = append(f.latePerMinute, rows.Values()[0].Int)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	f.toReply = time.Since(begin)
	c, err := d.client.Cluster().Describe(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range c.Nodes {
		f.nodes = append(f.nodes, fmt.Sprintf("%s leads %d, holds %d", n.Name, n.Primaries, n.Replicas))
	}
	f.notes = d.notes.all()
	return f, nil
}

func (d *demo) table(ctx context.Context, query string) ([][]string, error) {
	rows, err := d.client.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out [][]string
	for rows.Next() {
		var line []string
		for _, v := range rows.Values() {
			line = append(line, string(record.AppendTextValue(nil, v)))
		}
		out = append(out, line)
	}
	return out, rows.Err()
}

// plainScreen prints a line a second.
type plainScreen struct {
	out   io.Writer
	notes int // told so far
}

func (s *plainScreen) interval() time.Duration { return time.Second }

func (s *plainScreen) line(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

func (s *plainScreen) frame(f *frame) {
	for ; s.notes < len(f.notes); s.notes++ {
		s.line("%s", f.notes[s.notes])
	}
	busiest, worst := "-", "-"
	if len(f.busiest) > 0 {
		busiest = fmt.Sprintf("%s %s departures, mean delay %s min", f.busiest[0][0], f.busiest[0][1], f.busiest[0][2])
	}
	if len(f.routes) > 0 {
		worst = fmt.Sprintf("%s %s min", f.routes[0][0], f.routes[0][2])
	}
	s.line("%3.0f s  %6d of %d flights (%.0f/s)  it is %s  busiest: %s  worst route: %s  late in the last hour: %d",
		f.elapsed.Seconds(), f.acked, f.total, f.rate, f.simulated.Format("2 Jan 2006 15:04"), busiest, worst, sum(f.latePerMinute))
}

func (s *plainScreen) close() {}

func sum(values []int64) int64 {
	var out int64
	for _, v := range values {
		out += v
	}
	return out
}

// terminalScreen redraws in place.
type terminalScreen struct {
	out   *os.File
	drawn int // lines of the last frame
}

// fit cuts a line to the terminal's width: one that wraps would put the next frame in the wrong place.
func (s *terminalScreen) fit(line string) string {
	width, _, err := term.GetSize(int(s.out.Fd()))
	if runes := []rune(line); err == nil && width > 1 && len(runes) >= width {
		return string(runes[:width-1])
	}
	return line
}

func (s *terminalScreen) interval() time.Duration { return 250 * time.Millisecond }

func (s *terminalScreen) line(format string, args ...any) {
	s.drawn = 0
	fmt.Fprintf(s.out, format+"\n", args...)
}

func (s *terminalScreen) frame(f *frame) {
	var b strings.Builder
	if s.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", s.drawn) // up to the first line of the last frame
	} else {
		b.WriteString("\x1b[?25l") // no cursor
	}
	lines := f.lines()
	for _, l := range lines {
		b.WriteString(s.fit(l) + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	s.drawn = len(lines)
	io.WriteString(s.out, b.String())
}

func (s *terminalScreen) close() {
	if s.drawn > 0 {
		io.WriteString(s.out, "\x1b[?25h")
	}
	s.drawn = 0
}

const barWidth = 40

func (f *frame) lines() []string {
	done := 0
	if f.total > 0 {
		done = barWidth * f.acked / f.total
	}
	out := []string{
		"",
		fmt.Sprintf("  [%s%s] %d of %d flights, %.0f records/s", strings.Repeat("#", done), strings.Repeat(".", barWidth-done), f.acked, f.total, f.rate),
		fmt.Sprintf("  it is %s; all the queries below took %d ms", f.simulated.Format("Mon 2 Jan 2006 15:04 UTC"), f.toReply.Milliseconds()),
		"",
		fmt.Sprintf("  %-36s %s", "busiest airports, last full hour", "worst routes so far (20 flights or more)"),
		fmt.Sprintf("  %-10s %10s %12s   %-10s %10s %12s", "", "departures", "mean delay", "", "flights", "mean delay"),
	}
	for i := range 5 {
		left, right := []string{"", "", ""}, []string{"", "", ""}
		if i < len(f.busiest) {
			left = f.busiest[i]
		}
		if i < len(f.routes) {
			right = f.routes[i]
		}
		out = append(out, fmt.Sprintf("  %-10s %10s %12s   %-10s %10s %12s", left[0], left[1], left[2], right[0], right[1], right[2]))
	}
	out = append(out, "", "  late flights per minute, last hour: "+sparkline(f.latePerMinute), "", "  nodes: "+strings.Join(f.nodes, " | "))
	for _, n := range f.notes {
		out = append(out, "  "+n)
	}
	return out
}

// sparkline draws one character a value.
func sparkline(values []int64) string {
	marks := []rune("▁▂▃▄▅▆▇█")
	var most int64 = 1
	for _, v := range values {
		most = max(most, v)
	}
	var b strings.Builder
	for _, v := range values {
		b.WriteRune(marks[v*int64(len(marks)-1)/most])
	}
	return b.String()
}
