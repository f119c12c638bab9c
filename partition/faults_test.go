package partition

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// deliberateFault is a mistake put into the code on purpose, to see that a check of the simulation finds it. The code as it
// is built has none of them, and no switch: they are laid over a copy of it when the test is built (go build -overlay).
type deliberateFault struct {
	name   string
	edits  []edit   // none: the simulation makes the mistake itself, see planted
	caught []string // checks that may catch it; none: something else covers for it
}

// edit puts a mistake into a file: mistake(name) tells whether the process has it.
type edit struct{ file, from, to string }

var deliberateFaults = []deliberateFault{
	{"fsync left out", nil, []string{"acknowledged", "in-sync", "logs-agree", "own-check", "contents"}},
	{"primary outside the in-sync set", nil, []string{"own-check", "logs-agree", "in-sync", "acknowledged", "verdict"}},
	{"tick before its index", nil, []string{"closed-ticks"}},
	{"acknowledged before it is on disk", []edit{{
		"follow.go", "uint64(min(r.agreed, r.durable)), r.probe",
		`uint64(min(r.agreed, r.durable)), r.probe
	if mistake("acknowledged before it is on disk") {
		m.Durable = m.Agreed
	}`,
	}}, []string{"in-sync"}},
	{"committed before all in-sync members have it", []edit{{
		"lead.go", "to = min(to, p.match)",
		`if !mistake("committed before all in-sync members have it") {
			to = min(to, p.match)
		}`,
	}}, []string{"in-sync"}},
	{"committed before the members are heard in the term", []edit{{
		"lead.go", "if !p.confirmed {", `if !p.confirmed && !mistake("committed before the members are heard in the term") {`,
	}}, []string{"closed-ticks"}},
	// Terms cover for epochs: a message of an older epoch has an older term.
	{"no epoch check", []edit{{
		"follow.go", "case t.epoch < r.epoch():", `case t.epoch < r.epoch() && !mistake("no epoch check") && !mistake("no epoch and no term check"):`,
	}}, nil},
	{"no epoch and no term check", []edit{{
		"follow.go", "case t.less(r.hard.term), t.epoch", `case t.less(r.hard.term) && !mistake("no epoch and no term check"), t.epoch`,
	}}, []string{"one-primary", "own-check", "logs-agree", "in-sync", "closed-ticks", "heals"}},
	{"terms don't count starts", []edit{{
		"lead.go", "r.hard.term = term{ids.Epoch(r.cfg.Epoch), r.boot}",
		`r.hard.term = term{ids.Epoch(r.cfg.Epoch), r.boot}
	if mistake("terms don't count starts") {
		r.hard.term.boot = 1
	}`,
	}}, []string{"own-check", "in-sync", "logs-agree"}},
	{"acknowledged before the term is on disk", []edit{{
		"follow.go", `r.leader == "" || r.opDone < r.termOp ||`,
		`r.leader == "" || r.opDone < r.termOp && !mistake("acknowledged before the term is on disk") ||`,
	}}, []string{"own-check", "one-primary", "closed-ticks", "in-sync"}},
	{"no truncation where a term begins", []edit{{
		"follow.go", "if r.end >= termStart {", `if r.end >= termStart && !mistake("no truncation where a term begins") {`,
	}}, []string{"closed-ticks"}},
	{"logs compared by length alone", []edit{{
		"follow.go", "return lsn == 0 || r.hist.at(lsn) == t",
		`return lsn == 0 || r.hist.at(lsn) == t || mistake("logs compared by length alone")`,
	}}, []string{"logs-agree", "in-sync", "own-check"}},
	{"an entry kept whatever its term", []edit{{
		"follow.go", "e.lsn <= r.end && r.hist.at(e.lsn) == e.term:",
		`e.lsn <= r.end && (r.hist.at(e.lsn) == e.term || mistake("an entry kept whatever its term")):`,
	}}, []string{"logs-agree", "in-sync", "own-check"}},
	{"a joining learner not counted", []edit{{
		"lead.go", "return p.inSync || p.joining }", `return p.inSync || p.joining && !mistake("a joining learner not counted") }`,
	}}, []string{"logs-agree", "own-check", "in-sync"}},
	{"a joining learner forgotten at a restart", []edit{{
		"lead.go", "p.joining = !p.inSync && slices.Contains(r.hard.joining, node)",
		`p.joining = !p.inSync && slices.Contains(r.hard.joining, node) && !mistake("a joining learner forgotten at a restart")`,
	}}, []string{"own-check", "logs-agree", "in-sync", "acknowledged", "verdict"}},
	{"a learner proposed too early", []edit{{
		"lead.go", "!p.confirmed || !r.primary.established || p.match < r.commit ||",
		`(!p.confirmed || p.match < r.commit) && !mistake("a learner proposed too early") || !r.primary.established ||`,
	}}, []string{"own-check", "logs-agree", "in-sync", "acknowledged", "verdict"}},
	{"an older configuration obeyed", []edit{{
		"configure.go", "case epoch < r.epoch():", `case epoch < r.epoch() && !mistake("an older configuration obeyed"):`,
	}}, []string{"one-primary", "logs-agree", "own-check", "in-sync"}},
	{"a tick closed early", []edit{{
		"tick.go", "n < len(ps.closing) && ps.closing[n].end <= r.commit {",
		`n < len(ps.closing) && (ps.closing[n].end <= r.commit || mistake("a tick closed early")) {`,
	}}, []string{"closing"}},
	{"a tick taken from before the epoch", []edit{{
		"tick.go", "index < r.cfg.EpochIndex ||", `index < r.cfg.EpochIndex && !mistake("a tick taken from before the epoch") ||`,
	}}, []string{"closed-ticks"}},
	{"stamped below what the producer has seen", []edit{{
		"append.go", "q.seen <= r.primary.open &&", `(q.seen <= r.primary.open || mistake("stamped below what the producer has seen")) &&`,
	}}, []string{"causality"}},
	{"a repeat answered before its commit", []edit{{
		"append.go", "res.lsn > r.commit && e != nil {", `res.lsn > r.commit && e != nil && !mistake("a repeat answered before its commit") {`,
	}}, []string{"acknowledged"}},
	{"a repeat answered for another batch", []edit{{
		"append.go", "res, ok := rec.find(q.sequence)",
		`res, ok := rec.find(q.sequence)
	if mistake("a repeat answered for another batch") {
		res = rec.results[rec.n-1]
	}`,
	}}, []string{"one-answer", "acknowledged"}},
	{"a truncation that leaves the producers' records", []edit{{
		"replica.go", "if rec == nil || !rec.truncate(end) {",
		`if rec == nil || mistake("a truncation that leaves the producers' records") || !rec.truncate(end) {`,
	}}, []string{"acknowledged"}},
	{"a refusal not confirmed", []edit{{
		"append.go", "if q.sure {", `if q.sure || mistake("a refusal not confirmed") {`,
	}}, []string{"verdict"}},
	{"what the primary lacks is thrown away", []edit{{
		"held.go", "	if r.givenUp() {\n", "	if r.givenUp() || mistake(\"what the primary lacks is thrown away\") {\n",
	}}, []string{"kept", "held"}},
	{"what differs from the primary's is thrown away", []edit{{
		"follow.go", "if r.givenUp() && !slices", `if (r.givenUp() || mistake("what differs from the primary's is thrown away")) && !slices`,
	}}, []string{"kept", "held"}},
	{"an operator's choice not obeyed", []edit{{
		"held.go", "if !chosen ||", `if !chosen || mistake("an operator's choice not obeyed") ||`,
	}}, []string{"heals", "commit-known"}},
	{"committed, though not compared", []edit{{
		"follow.go", "return min(r.known, r.agreed, r.durable)",
		`if mistake("committed, though not compared") {
		return min(r.known, r.durable)
	}
	return min(r.known, r.agreed, r.durable)`,
	}}, []string{"logs-agree", "own-check"}},
}

// mistakes is laid over the package next to the edits.
const mistakes = `package partition

import "os"

var theMistake = os.Getenv("MILLRACE_FAULT")

func mistake(name string) bool { return name == theMistake }
`

// TestDeliberateFaults runs the simulation with each fault until a check catches it. DESIGN.md has the list.
func TestDeliberateFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the package anew")
	}
	bin := buildFaulty(t)
	if check, out := simulate(t, bin, "none", 100); check != "" {
		t.Fatalf("without a fault %s says:\n%s", check, out)
	}
	for _, f := range deliberateFaults {
		t.Run(f.name, func(t *testing.T) {
			rounds := 20000
			if len(f.caught) == 0 {
				rounds = 400
			}
			check, out := simulate(t, bin, f.name, rounds)
			switch {
			case len(f.caught) == 0 && check != "":
				t.Fatalf("another guard should cover for it, but %s found:\n%s", check, out)
			case len(f.caught) == 0:
			case check == "":
				t.Fatalf("no check caught it:\n%s", out)
			case !slices.Contains(f.caught, check):
				t.Fatalf("caught by %s, which isn't among %v:\n%s", check, f.caught, out)
			default:
				t.Logf("caught by %s", check)
			}
		})
	}
}

// buildFaulty builds the package's tests with all faults, each off.
func buildFaulty(t *testing.T) (bin string) {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{"mistakes.go": mistakes}
	for _, f := range deliberateFaults {
		for _, e := range f.edits {
			if files[e.file] == "" {
				b, err := os.ReadFile(e.file)
				if err != nil {
					t.Fatal(err)
				}
				files[e.file] = string(b)
			}
			if n := strings.Count(files[e.file], e.from); n != 1 {
				t.Fatalf("%s: %s has %q %d times, not once: the fault must follow the code", f.name, e.file, e.from, n)
			}
			files[e.file] = strings.Replace(files[e.file], e.from, e.to, 1)
		}
	}
	replace := map[string]string{}
	for name, text := range files {
		patched := filepath.Join(dir, name)
		if err := os.WriteFile(patched, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		abs, err := filepath.Abs(name)
		if err != nil {
			t.Fatal(err)
		}
		replace[abs] = patched
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, list, 0o644); err != nil {
		t.Fatal(err)
	}
	bin = filepath.Join(dir, "faulty.test")
	out, err := exec.Command("go", "test", "-c", "-trimpath", "-o", bin, "-overlay", overlay, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go test -c: %v\n%s", err, out)
	}
	return bin
}

var caughtBy = regexp.MustCompile(`step \d+: \[([a-z-]+)\]`)

// simulate runs schedules with a fault until a check finds something, and returns its name.
func simulate(t *testing.T, bin, fault string, rounds int) (check, out string) {
	t.Helper()
	cmd := exec.Command(bin, "-test.run=^TestSimulation$", fmt.Sprint("-sim.rounds=", rounds), "-sim.base=1")
	cmd.Env = append(os.Environ(), "MILLRACE_FAULT="+fault)
	b, err := cmd.CombinedOutput()
	out = string(b[max(0, len(b)-2000):])
	if err == nil {
		return "", out
	}
	m := caughtBy.FindStringSubmatch(string(b))
	if m == nil {
		t.Fatalf("it ended without a check's word:\n%s", out)
	}
	return m[1], out
}
