package partition

import (
	"fmt"
	"regexp"
	"testing"

	"github.com/millrace/millrace/internal/mistakes"
)

// deliberateFaults are mistakes put into the code on purpose, to see that a check of the simulation finds each.
var deliberateFaults = []mistakes.Mistake{
	{Name: "fsync left out", Caught: []string{"acknowledged", "in-sync", "logs-agree", "own-check", "contents"}},
	{Name: "primary outside the in-sync set", Caught: []string{"own-check", "logs-agree", "in-sync", "acknowledged", "verdict"}},
	{Name: "tick before its index", Caught: []string{"closed-ticks"}},
	{Name: "acknowledged before it is on disk", Edits: mistakes.In(
		"follow.go", "uint64(min(r.agreed, r.durable)), r.probe",
		`uint64(min(r.agreed, r.durable)), r.probe
	if mistake("acknowledged before it is on disk") {
		m.Durable = m.Agreed
	}`,
	), Caught: []string{"in-sync"}},
	{Name: "committed before all in-sync members have it", Edits: mistakes.In(
		"lead.go", "to = min(to, p.match)",
		`if !mistake("committed before all in-sync members have it") {
			to = min(to, p.match)
		}`,
	), Caught: []string{"in-sync"}},
	{Name: "committed before the members are heard in the term", Edits: mistakes.In(
		"lead.go", "if !p.confirmed {", `if !p.confirmed && !mistake("committed before the members are heard in the term") {`,
	), Caught: []string{"closed-ticks"}},
	// Terms cover for epochs: a message of an older epoch has an older term.
	{Name: "no epoch check", Edits: mistakes.In(
		"follow.go", "case t.epoch < r.epoch():", `case t.epoch < r.epoch() && !mistake("no epoch check") && !mistake("no epoch and no term check"):`,
	)},
	{Name: "no epoch and no term check", Edits: mistakes.In(
		"follow.go", "case t.less(r.hard.term), t.epoch", `case t.less(r.hard.term) && !mistake("no epoch and no term check"), t.epoch`,
	), Caught: []string{"one-primary", "own-check", "logs-agree", "in-sync", "closed-ticks", "heals"}},
	{Name: "terms don't count starts", Edits: mistakes.In(
		"lead.go", "r.hard.term = term{ids.Epoch(r.cfg.Epoch), r.boot}",
		`r.hard.term = term{ids.Epoch(r.cfg.Epoch), r.boot}
	if mistake("terms don't count starts") {
		r.hard.term.boot = 1
	}`,
	), Caught: []string{"own-check", "in-sync", "logs-agree"}},
	{Name: "acknowledged before the term is on disk", Edits: mistakes.In(
		"follow.go", `r.leader == "" || r.opDone < r.termOp ||`,
		`r.leader == "" || r.opDone < r.termOp && !mistake("acknowledged before the term is on disk") ||`,
	), Caught: []string{"own-check", "one-primary", "closed-ticks", "in-sync"}},
	{Name: "no truncation where a term begins", Edits: mistakes.In(
		"follow.go", "if r.end >= termStart {", `if r.end >= termStart && !mistake("no truncation where a term begins") {`,
	), Caught: []string{"closed-ticks"}},
	{Name: "logs compared by length alone", Edits: mistakes.In(
		"follow.go", "return lsn == 0 || r.hist.at(lsn) == t",
		`return lsn == 0 || r.hist.at(lsn) == t || mistake("logs compared by length alone")`,
	), Caught: []string{"logs-agree", "in-sync", "own-check"}},
	{Name: "an entry kept whatever its term", Edits: mistakes.In(
		"follow.go", "e.lsn <= r.end && r.hist.at(e.lsn) == e.term:",
		`e.lsn <= r.end && (r.hist.at(e.lsn) == e.term || mistake("an entry kept whatever its term")):`,
	), Caught: []string{"logs-agree", "in-sync", "own-check"}},
	{Name: "a joining learner not counted", Edits: mistakes.In(
		"lead.go", "return p.inSync || p.joining }", `return p.inSync || p.joining && !mistake("a joining learner not counted") }`,
	), Caught: []string{"logs-agree", "own-check", "in-sync"}},
	{Name: "a joining learner forgotten at a restart", Edits: mistakes.In(
		"lead.go", "p.joining = !p.inSync && slices.Contains(r.hard.joining, node)",
		`p.joining = !p.inSync && slices.Contains(r.hard.joining, node) && !mistake("a joining learner forgotten at a restart")`,
	), Caught: []string{"own-check", "logs-agree", "in-sync", "acknowledged", "verdict"}},
	{Name: "a learner proposed too early", Edits: mistakes.In(
		"lead.go", "!p.confirmed || !r.primary.established || p.match < r.commit ||",
		`(!p.confirmed || p.match < r.commit) && !mistake("a learner proposed too early") || !r.primary.established ||`,
	), Caught: []string{"own-check", "logs-agree", "in-sync", "acknowledged", "verdict"}},
	{Name: "an older configuration obeyed", Edits: mistakes.In(
		"configure.go", "case epoch < r.epoch():", `case epoch < r.epoch() && !mistake("an older configuration obeyed"):`,
	), Caught: []string{"one-primary", "logs-agree", "own-check", "in-sync"}},
	{Name: "a tick closed early", Edits: mistakes.In(
		"tick.go", "n < len(ps.closing) && ps.closing[n].end <= r.commit {",
		`n < len(ps.closing) && (ps.closing[n].end <= r.commit || mistake("a tick closed early")) {`,
	), Caught: []string{"closing"}},
	{Name: "a tick taken from before the epoch", Edits: mistakes.In(
		"tick.go", "index < r.cfg.EpochIndex ||", `index < r.cfg.EpochIndex && !mistake("a tick taken from before the epoch") ||`,
	), Caught: []string{"closed-ticks"}},
	{Name: "stamped below what the producer has seen", Edits: mistakes.In(
		"append.go", "q.seen <= r.primary.open &&", `(q.seen <= r.primary.open || mistake("stamped below what the producer has seen")) &&`,
	), Caught: []string{"causality"}},
	{Name: "a repeat answered before its commit", Edits: mistakes.In(
		"append.go", "res.lsn > r.commit && e != nil {", `res.lsn > r.commit && e != nil && !mistake("a repeat answered before its commit") {`,
	), Caught: []string{"acknowledged"}},
	{Name: "a repeat answered for another batch", Edits: mistakes.In(
		"append.go", "res, ok := rec.find(q.sequence)",
		`res, ok := rec.find(q.sequence)
	if mistake("a repeat answered for another batch") {
		res = rec.results[rec.n-1]
	}`,
	), Caught: []string{"one-answer", "acknowledged"}},
	{Name: "a truncation that leaves the producers' records", Edits: mistakes.In(
		"replica.go", "if rec == nil || !rec.truncate(end) {",
		`if rec == nil || mistake("a truncation that leaves the producers' records") || !rec.truncate(end) {`,
	), Caught: []string{"acknowledged"}},
	{Name: "a refusal not confirmed", Edits: mistakes.In(
		"append.go", "if q.sure {", `if q.sure || mistake("a refusal not confirmed") {`,
	), Caught: []string{"verdict"}},
	{Name: "what the primary lacks is thrown away", Edits: mistakes.In(
		"held.go", "	if r.givenUp() {\n", "	if r.givenUp() || mistake(\"what the primary lacks is thrown away\") {\n",
	), Caught: []string{"kept", "held", "own-check"}},
	{Name: "an operator's choice not obeyed", Edits: mistakes.In(
		"held.go", "if !chosen ||", `if !chosen || mistake("an operator's choice not obeyed") ||`,
	), Caught: []string{"heals", "commit-known"}},
	{Name: "retention told once only", Edits: mistakes.In(
		"lead.go", "	p.startsSent = 0 //", "	if !mistake(\"retention told once only\") {\n		p.startsSent = 0\n	}\n	//",
	), Caught: []string{"retention"}},
	{Name: "retention not told by a primary that restarted", Edits: mistakes.In(
		"lead.go", "if st.start > 0 {", `if st.start > 0 && !mistake("retention not told by a primary that restarted") {`,
	), Caught: []string{"retention"}},
	{Name: "committed, though not compared", Edits: mistakes.In(
		"follow.go", "return min(r.known, r.agreed, r.durable)",
		`if mistake("committed, though not compared") {
		return min(r.known, r.durable)
	}
	return min(r.known, r.agreed, r.durable)`,
	), Caught: []string{"logs-agree", "own-check"}},
}

// TestDeliberateFaults runs the simulation with each fault until a check catches it. DESIGN.md has the list.
func TestDeliberateFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the package anew")
	}
	bin := mistakes.Build(t, "partition", deliberateFaults)
	if check, out := simulate(t, bin, "none", 100); check != "" {
		t.Fatalf("without a fault %s says:\n%s", check, out)
	}
	for _, f := range deliberateFaults {
		t.Run(f.Name, func(t *testing.T) {
			rounds := 20000
			if len(f.Caught) == 0 {
				rounds = 400
			}
			check, out := simulate(t, bin, f.Name, rounds)
			f.Judge(t, check, out)
		})
	}
}

var caughtBy = regexp.MustCompile(`step \d+: \[([a-z-]+)\]`)

// simulate runs schedules with a fault until a check finds something, and returns its name.
func simulate(t *testing.T, bin, fault string, rounds int) (check, out string) {
	t.Helper()
	name := func(out []byte) string {
		if m := caughtBy.FindSubmatch(out); m != nil {
			return string(m[1])
		}
		return ""
	}
	return mistakes.Run(t, bin, fault, name, "-test.run=^TestSimulation$", fmt.Sprint("-sim.rounds=", rounds), "-sim.base=1")
}
