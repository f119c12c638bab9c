package check

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// Relation is a view, table or query that the model can recompute.
type Relation struct {
	Name  string
	SQL   string   // what makes it
	Needs []string // relations that it reads
	Core  bool     // every run has it; of the others a run has some
	Kind  Kind
	// Point is the column that the first one's values can be asked for with: a read of one key. Empty: there is none.
	Point string
	// Zero is the column, from 0, whose sum over all rows is 0 at any tick, or -1.
	Zero int

	// follow returns what keeps the relation up to date.
	follow func(m *model, r *relation) follower
}

// Kind is how a relation is made and asked.
type Kind int

const (
	View  Kind = iota // CREATE MATERIALIZED VIEW
	AdHoc             // never made: its query is asked
	Table             // SQL is its CREATE TABLE
)

// CreateStream makes the stream of the events.
const CreateStream = `CREATE STREAM ev (p BIGINT, n BIGINT, k TEXT, src BIGINT, dst BIGINT, v BIGINT, ts TIMESTAMPTZ,
	WATERMARK FOR ts AS ts - INTERVAL '2 seconds') WITH (format = 'json', key = 'k')`

// TableName is the table that the workload changes by statements.
const TableName = "acct"

// Relations are all relations, each behind those that it needs. The core is the bank: money goes from one account to
// another, so that whatever is joined and summed, the total is 0.
var Relations = []Relation{
	{Name: "whole", Kind: AdHoc, Core: true, Zero: -1, follow: whole, SQL: "SELECT count(*) AS n, sum(v) AS s, max(n) AS top FROM ev"},
	{Name: "credits", Core: true, Zero: -1, Point: "dst", follow: credits, SQL: "SELECT dst, count(*) AS n, sum(v) AS s FROM ev GROUP BY dst"},
	{Name: "debits", Core: true, Zero: -1, Point: "src", follow: debits, SQL: "SELECT src, count(*) AS n, sum(v) AS s FROM ev GROUP BY src"},
	{Name: "balances", Core: true, Zero: 1, Point: "a", Needs: []string{"credits", "debits"}, follow: balances, SQL: `SELECT coalesce(c.dst, d.src) AS a, coalesce(c.s, 0) - coalesce(d.s, 0) AS b
		FROM credits c FULL JOIN debits d ON c.dst = d.src`},
	{Name: "total", Core: true, Zero: 0, Needs: []string{"balances"}, follow: total, SQL: "SELECT sum(b) AS total FROM balances"},

	{Name: "balance", Zero: 1, follow: balances, SQL: "SELECT a, sum(d) AS s FROM (SELECT dst AS a, v AS d FROM ev UNION ALL SELECT src AS a, -v AS d FROM ev) AS legs GROUP BY a"},
	{Name: "lefts", Zero: -1, Needs: []string{"credits", "debits"}, follow: lefts, SQL: `SELECT c.dst AS a, c.s - coalesce(d.s, 0) AS b FROM credits c LEFT JOIN debits d ON c.dst = d.src`},
	{Name: "rights", Zero: -1, Needs: []string{"credits", "debits"}, follow: rights, SQL: `SELECT d.src AS a, coalesce(c.s, 0) - d.s AS b FROM credits c RIGHT JOIN debits d ON c.dst = d.src`},
	{Name: "matched", Zero: -1, follow: matched, SQL: "SELECT count(*) AS n, count(b.p) AS m FROM ev a LEFT JOIN ev b ON a.p = b.p AND a.n = b.n"},
	{Name: "most", Zero: -1, Needs: []string{"credits"}, follow: most, SQL: "SELECT max(n) AS n, min(n) AS m FROM credits"},
	{Name: "by_key", Zero: -1, follow: byKey, SQL: "SELECT k, count(*) AS n, sum(v) AS s, max(n) AS top FROM ev GROUP BY k"},
	{Name: "amounts", Zero: -1, follow: amounts, SQL: "SELECT src, count(DISTINCT v) AS n FROM ev GROUP BY src"},
	{Name: "chunks", Zero: -1, follow: chunks, SQL: "SELECT DISTINCT p, n / 100 AS c FROM ev"},
	{Name: "newest", Zero: -1, follow: newest, SQL: `SELECT dst, n, p, place FROM
		(SELECT dst, n, p, row_number() OVER (PARTITION BY dst ORDER BY n DESC, p) AS place FROM ev) x WHERE place <= 3`},
	{Name: "gaps", Zero: -1, follow: gaps, SQL: `SELECT k, count(*) AS n, count(gap) AS g, sum(gap) AS s FROM
		(SELECT k, n - lag(n) OVER (PARTITION BY k, n / 200 ORDER BY n) AS gap FROM ev) x GROUP BY k`},

	{Name: "windows", Zero: -1, follow: windows, SQL: "SELECT window_start, count(*) AS n, sum(v) AS s FROM TUMBLE(ev, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end"},
	{Name: "hops", Zero: -1, follow: hops, SQL: `SELECT dst, window_start, count(*) AS n FROM HOP(ev, ts, INTERVAL '5 seconds', INTERVAL '15 seconds')
		GROUP BY dst, window_start, window_end`},
	{Name: "pairs", Zero: -1, follow: pairs, SQL: `SELECT a.dst, a.n, b.n AS m, a.window_start FROM
		(SELECT dst, window_start, window_end, count(*) AS n FROM TUMBLE(ev, ts, INTERVAL '10 seconds') GROUP BY dst, window_start, window_end) a JOIN
		(SELECT src, window_start, window_end, count(*) AS n FROM TUMBLE(ev, ts, INTERVAL '10 seconds') GROUP BY src, window_start, window_end) b
		ON a.dst = b.src AND a.window_start = b.window_start AND a.window_end = b.window_end`},
	{Name: "sessions", Zero: -1, follow: sessions, SQL: `SELECT p, count(*) AS n, window_start, window_end FROM SESSION(ev, ts, INTERVAL '45 milliseconds')
		GROUP BY p, window_start, window_end`},

	{Name: TableName, Kind: Table, Zero: -1, Point: "a", follow: accounts, SQL: "CREATE TABLE acct (a BIGINT PRIMARY KEY, name TEXT, r BIGINT)"},
	{Name: "funds", Zero: -1, Needs: []string{TableName}, follow: funds, SQL: "SELECT count(*) AS n, sum(r) AS s FROM acct"},
	{Name: "named", Zero: -1, Point: "a", Needs: []string{TableName, "credits"}, follow: named, SQL: "SELECT t.a, t.name, c.n FROM acct t LEFT JOIN credits c ON c.dst = t.a"},
	{Name: "unknown", Zero: -1, Needs: []string{TableName, "credits"}, follow: unknown, SQL: "SELECT c.dst, c.n FROM credits c WHERE NOT EXISTS (SELECT 1 FROM acct t WHERE t.a = c.dst)"},
}

// relationNamed returns a relation, or nil.
func relationNamed(name string) *Relation {
	for i := range Relations {
		if Relations[i].Name == name {
			return &Relations[i]
		}
	}
	return nil
}

// Choose returns the core and some others, as many as said (0: all) and what they need, in the order in which they are
// made. Which, follows from the seed.
func Choose(seed uint64, others int) (out []Relation) {
	var rest []string
	chosen := map[string]bool{}
	for _, r := range Relations {
		if r.Core {
			chosen[r.Name] = true
		} else {
			rest = append(rest, r.Name)
		}
	}
	rand.New(rand.NewPCG(seed, 7)).Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	if others > 0 && others < len(rest) {
		rest = rest[:others]
	}
	for _, name := range rest {
		chosen[name] = true
		for _, n := range relationNamed(name).Needs {
			chosen[n] = true
		}
	}
	for _, r := range Relations {
		if chosen[r.Name] {
			out = append(out, r)
		}
	}
	return out
}

// Ask is the statement that reads all of a relation.
func (r Relation) Ask() string {
	if r.Kind == AdHoc {
		return r.SQL
	}
	return "SELECT * FROM " + r.Name
}

// AskPoint is the statement that reads an account's rows.
func (r Relation) AskPoint(account int64) string {
	return fmt.Sprintf("SELECT * FROM %s WHERE %s = %d", r.Name, r.Point, account)
}

// Create is the statement that makes it; empty where there is nothing to make.
func (r Relation) Create() string {
	switch r.Kind {
	case AdHoc:
		return ""
	case Table:
		return r.SQL
	}
	return "CREATE MATERIALIZED VIEW " + r.Name + " AS " + r.SQL
}

func whole(m *model, r *relation) follower {
	set := func() {
		if g := m.all; g.n > 0 {
			r.set("", fmt.Sprintf("%d|%d|%d", g.n, g.s, g.top))
		} else {
			r.set("", "0|NULL|NULL")
		}
	}
	set()
	return follower{event: func(arrived) { set() }}
}

func credits(m *model, r *relation) follower {
	return follower{event: func(x arrived) { r.set(fmt.Sprint(x.to), groupRow(x.to, m.in[x.to])) }}
}

func debits(m *model, r *relation) follower {
	return follower{event: func(x arrived) { r.set(fmt.Sprint(x.from), groupRow(x.from, m.out[x.from])) }}
}

func groupRow(account int64, g group) Row { return fmt.Sprintf("%d|%d|%d", account, g.n, g.s) }

// perAccount is a relation of one row an account, for the accounts that row has one for.
func perAccount(r *relation, row func(a int64) Row) follower {
	set := func(a int64) { r.set(fmt.Sprint(a), row(a)) }
	return follower{event: func(x arrived) { set(x.from); set(x.to) }, change: func(c Change) { set(c.Account) }}
}

func balances(m *model, r *relation) follower {
	return perAccount(r, func(a int64) Row {
		if m.in[a].n == 0 && m.out[a].n == 0 {
			return ""
		}
		return fmt.Sprintf("%d|%d", a, m.in[a].s-m.out[a].s)
	})
}

func lefts(m *model, r *relation) follower {
	return perAccount(r, func(a int64) Row {
		if m.in[a].n == 0 {
			return ""
		}
		return fmt.Sprintf("%d|%d", a, m.in[a].s-m.out[a].s)
	})
}

func rights(m *model, r *relation) follower {
	return perAccount(r, func(a int64) Row {
		if m.out[a].n == 0 {
			return ""
		}
		return fmt.Sprintf("%d|%d", a, m.in[a].s-m.out[a].s)
	})
}

func total(_ *model, r *relation) follower {
	r.set("", "NULL")
	return follower{event: func(arrived) { r.set("", "0") }}
}

func matched(m *model, r *relation) follower {
	r.set("", "0|0")
	return follower{event: func(arrived) { r.set("", fmt.Sprintf("%d|%d", m.all.n, m.all.n)) }}
}

func most(m *model, r *relation) follower {
	r.set("", "NULL|NULL")
	return follower{event: func(arrived) {
		high, low := int64(0), int64(1<<62)
		for _, g := range m.in {
			high, low = max(high, g.n), min(low, g.n)
		}
		r.set("", fmt.Sprintf("%d|%d", high, low))
	}}
}

func byKey(_ *model, r *relation) follower {
	groups := map[string]group{}
	return follower{event: func(x arrived) {
		g := groups[x.key].add(x.amount, x.seq)
		groups[x.key] = g
		r.set(x.key, fmt.Sprintf("%s|%d|%d|%d", x.key, g.n, g.s, g.top))
	}}
}

func amounts(_ *model, r *relation) follower {
	seen := map[int64]map[int64]bool{}
	return follower{event: func(x arrived) {
		if seen[x.from] == nil {
			seen[x.from] = map[int64]bool{}
		}
		seen[x.from][x.amount] = true
		r.set(fmt.Sprint(x.from), fmt.Sprintf("%d|%d", x.from, len(seen[x.from])))
	}}
}

func chunks(_ *model, r *relation) follower {
	return follower{event: func(x arrived) {
		row := fmt.Sprintf("%d|%d", x.producer, x.seq/100)
		r.set(row, row)
	}}
}

func newest(_ *model, r *relation) follower {
	type place struct{ seq, producer int64 }
	top := map[int64][]place{}
	return follower{event: func(x arrived) {
		l := append(top[x.to], place{x.seq, x.producer})
		slices.SortFunc(l, func(a, b place) int {
			if a.seq != b.seq {
				return int(b.seq - a.seq)
			}
			return int(a.producer - b.producer)
		})
		l = l[:min(len(l), 3)]
		top[x.to] = l
		for i, p := range l {
			r.set(fmt.Sprint(x.to, i), fmt.Sprintf("%d|%d|%d|%d", x.to, p.seq, p.producer, i+1))
		}
	}}
}

func gaps(_ *model, r *relation) follower {
	type chunk struct {
		key string
		c   int64
	}
	type span struct{ low, high int64 }
	type sum struct{ n, gaps, s int64 }
	spans, sums := map[chunk]span{}, map[string]sum{}
	return follower{event: func(x arrived) {
		at := chunk{x.key, x.seq / 200}
		sp, was := spans[at]
		t := sums[x.key]
		if was {
			t.s -= sp.high - sp.low
			t.gaps++
			sp.low, sp.high = min(sp.low, x.seq), max(sp.high, x.seq)
		} else {
			sp.low, sp.high = x.seq, x.seq
		}
		t.n++
		t.s += sp.high - sp.low
		spans[at], sums[x.key] = sp, t
		s := "NULL"
		if t.gaps > 0 {
			s = fmt.Sprint(t.s)
		}
		r.set(x.key, fmt.Sprintf("%s|%d|%d|%s", x.key, t.n, t.gaps, s))
	}}
}

func accounts(m *model, r *relation) follower {
	return follower{change: func(c Change) {
		row := Row("")
		if t, ok := m.table[c.Account]; ok {
			row = fmt.Sprintf("%d|%s|%d", c.Account, t.Name, t.R)
		}
		r.set(fmt.Sprint(c.Account), row)
	}}
}

func funds(m *model, r *relation) follower {
	r.set("", "0|NULL")
	return follower{change: func(Change) {
		s := "NULL"
		if len(m.table) > 0 {
			sum := int64(0)
			for _, t := range m.table {
				sum += t.R
			}
			s = fmt.Sprint(sum)
		}
		r.set("", fmt.Sprintf("%d|%s", len(m.table), s))
	}}
}

func named(m *model, r *relation) follower {
	return perAccount(r, func(a int64) Row {
		t, ok := m.table[a]
		if !ok {
			return ""
		}
		if g := m.in[a]; g.n > 0 {
			return fmt.Sprintf("%d|%s|%d", a, t.Name, g.n)
		}
		return fmt.Sprintf("%d|%s|NULL", a, t.Name)
	})
}

func unknown(m *model, r *relation) follower {
	return perAccount(r, func(a int64) Row {
		if _, ok := m.table[a]; ok || m.in[a].n == 0 {
			return ""
		}
		return fmt.Sprintf("%d|%d", a, m.in[a].n)
	})
}
