// Differential runs generated queries as live views over generated input, and compares what they hold and how they
// change, at many ticks, with what PostgreSQL answers over the input up to that tick. See README.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

type options struct {
	dsn      string
	duration time.Duration
	seed     uint64
	cases    int
	views    int
	out      string
	replay   string
	record   string
	long     bool
	keep     int
	shrink   time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.dsn, "postgres", os.Getenv("DIFFERENTIAL_POSTGRES"), "connection of a PostgreSQL 15 server (UTF8, collation C)")
	flag.DurationVar(&o.duration, "duration", time.Minute, "how long to go on")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "of the first case; the next ones count up")
	flag.IntVar(&o.cases, "cases", 0, "end after so many cases; 0: by -duration alone")
	flag.IntVar(&o.views, "views", 12, "views of a case")
	flag.StringVar(&o.out, "out", "differential.out", "folder for the cases that differ")
	flag.StringVar(&o.replay, "replay", "", "run this case's file again, and nothing else")
	flag.StringVar(&o.record, "record", "", "write the cases to this folder, with what PostgreSQL said: the corpus")
	flag.BoolVar(&o.long, "long", false, "list the functions that weren't reached, and all refusals")
	flag.IntVar(&o.keep, "stop", 20, "end after so many differences")
	flag.DurationVar(&o.shrink, "shrink", 40*time.Second, "time for making a case that differs smaller")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := start(ctx, &o); err != nil {
		fmt.Fprintln(os.Stderr, "differential:", err)
		os.Exit(1)
	}
}

func start(ctx context.Context, o *options) error {
	if o.dsn == "" {
		return errors.New("-postgres or DIFFERENTIAL_POSTGRES must name a server")
	}
	conn, err := connect(ctx, o.dsn)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if o.replay != "" {
		return replay(ctx, conn, o.replay)
	}
	s := &session{options: o, conn: conn, cover: newCoverage(), here: map[string]int{}, pg: map[string]int{}}
	return s.run(ctx)
}

// replay runs one case again.
func replay(ctx context.Context, conn *pgconn.PgConn, path string) error {
	c, err := readCase(path)
	if err != nil {
		return err
	}
	out, err := run(ctx, conn, c, newCoverage(), false)
	if err != nil {
		return err
	}
	for v, why := range out.refusedHere {
		fmt.Printf("%s is refused: %s\n", v, why)
	}
	for v, why := range out.refusedPG {
		fmt.Printf("%s is refused by PostgreSQL: %s\n", v, why)
	}
	for i := range out.differences {
		fmt.Println(&out.differences[i])
	}
	fmt.Printf("%d answers compared\n", out.answers)
	if len(out.differences) > 0 {
		return errors.New("the two differ")
	}
	return nil
}

// session is a run over many cases.
type session struct {
	*options
	conn        *pgconn.PgConn
	cover       *coverage
	cases       int
	queries     int
	refused     int
	answers     int
	differences int
	here, pg    map[string]int // refusals by their reason
}

func (s *session) run(ctx context.Context) error {
	begun := time.Now()
	told := begun
	for seed := s.seed; ctx.Err() == nil; seed++ {
		if time.Since(begun) > s.duration || s.options.cases > 0 && s.cases >= s.options.cases || s.differences >= s.keep {
			break
		}
		if err := s.one(ctx, seed); err != nil {
			return fmt.Errorf("seed %d: %w", seed, err)
		}
		if time.Since(told) > 30*time.Second {
			told = time.Now()
			s.progress(begun)
		}
	}
	s.progress(begun)
	s.cover.print(os.Stdout, s.long)
	s.refusals("refused by Millrace", s.here)
	s.refusals("refused by PostgreSQL", s.pg)
	if s.differences > 0 {
		return fmt.Errorf("%d differences, in %s", s.differences, s.out)
	}
	return nil
}

func (s *session) progress(begun time.Time) {
	fmt.Printf("%v: %d cases, %d queries, %d answers compared, %d queries refused, %d differences\n",
		time.Since(begun).Round(time.Second), s.cases, s.queries, s.answers, s.refused, s.differences)
}

func (s *session) refusals(title string, by map[string]int) {
	var reasons []string
	for r := range by {
		reasons = append(reasons, r)
	}
	slices.SortFunc(reasons, func(a, b string) int { return by[b] - by[a] })
	if !s.long && len(reasons) > 12 {
		reasons = reasons[:12]
	}
	fmt.Println(title + ":")
	for _, r := range reasons {
		fmt.Printf("  %5d %s\n", by[r], r)
	}
}

// one runs the case of a seed.
func (s *session) one(ctx context.Context, seed uint64) error {
	g := grow(fresh(seed, s.views))
	out, err := run(ctx, s.conn, g.c, s.cover, s.record != "")
	if err != nil {
		return err
	}
	s.cases++
	s.queries += out.queries
	s.answers += out.answers
	s.refused += len(out.refusedHere) + len(out.refusedPG)
	for v, why := range out.refusedHere {
		if s.here[reason(why)]++; s.long && s.here[reason(why)] == 1 {
			fmt.Printf("refused: %s\n  %s\n", why, g.c.view(v).SQL)
		}
	}
	for v, why := range out.refusedPG {
		if s.pg[reason(why)]++; s.long && s.pg[reason(why)] == 1 {
			fmt.Printf("refused by PostgreSQL: %s\n  %s\n", why, g.c.view(v).PG)
		}
	}
	if s.record != "" && len(out.differences) == 0 {
		raw, err := json.Marshal(g.c)
		if err == nil {
			err = os.WriteFile(filepath.Join(s.record, fmt.Sprintf("%d.json", seed)), append(raw, '\n'), 0o644)
		}
		if err != nil {
			return err
		}
	}
	for i := range out.differences {
		s.differences++
		if err := s.found(ctx, g, &out.differences[i]); err != nil {
			return err
		}
	}
	return nil
}

// reason is a refusal without what is in quotes, and without its place.
func reason(why string) string {
	var b strings.Builder
	for i, part := range strings.Split(why, `"`) {
		if i%2 == 0 {
			b.WriteString(part)
		} else {
			b.WriteString(`"..."`)
		}
	}
	out, _, _ := strings.Cut(b.String(), " at 1:")
	return out
}

// found makes a difference smaller and writes it down.
func (s *session) found(ctx context.Context, g *grown, d *Difference) error {
	if err := os.MkdirAll(s.out, 0o755); err != nil {
		return err
	}
	fmt.Printf("seed %d: %v\n(being made smaller)\n", g.c.Seed, d)
	what := d.What
	var last *Difference
	if strings.HasPrefix(d.Detail, "failed: ") {
		long := patience
		patience = 5 * time.Second
		defer func() { patience = long }()
	}
	small := shrink(g, d.View, func(c *Case) bool {
		out, err := run(ctx, s.conn, c, newCoverage(), false)
		if err != nil {
			return false
		}
		for i := range out.differences {
			if (out.differences[i].What == "planned") == (what == "planned") && strings.HasPrefix(out.differences[i].Detail, "failed: ") == strings.HasPrefix(d.Detail, "failed: ") {
				last = &out.differences[i]
				return true
			}
		}
		return false
	}, s.shrink)
	if last == nil {
		last = d
	}
	path := filepath.Join(s.out, fmt.Sprintf("%d-%s.json", g.c.Seed, d.View))
	fmt.Printf("DIFFERENCE, seed %d, written to %s\n%v\n", g.c.Seed, path, last)
	for _, v := range small.c.Views {
		fmt.Printf("  %s\n  PostgreSQL: %s\n", v.SQL, v.PG)
	}
	records := 0
	for _, st := range small.c.Steps {
		records += len(st.Records)
	}
	fmt.Printf("  %d partitions, %d steps, %d records\n", small.c.Partitions, len(small.c.Steps), records)
	return small.c.write(path)
}
