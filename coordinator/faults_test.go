package coordinator

import (
	"fmt"
	"regexp"
	"testing"

	"github.com/millrace/millrace/internal/mistakes"
)

// deliberateFaults are mistakes in the oracle, the applier and Raft's state machine, put in on purpose to see that a check
// of the simulation finds each.
var deliberateFaults = []mistakes.Mistake{
	{Name: "a leader that hasn't applied everything", Caught: []string{"tick-order"}},
	{Name: "a ceiling taken for durable when it is proposed", Caught: []string{"ceiling", "tick-twice"}},
	{Name: "a leader that begins at its clock", Edits: mistakes.In(
		"oracle.go", "	return &oracle{cfg: cfg, last: floor, ceiling: floor, issued: now, holdTo: now}\n",
		`	if mistake("a leader that begins at its clock") {
		return &oracle{cfg: cfg, ceiling: floor, issued: now, holdTo: now}
	}
	return &oracle{cfg: cfg, last: floor, ceiling: floor, issued: now, holdTo: now}
`,
	), Caught: []string{"tick-order"}},
	{Name: "a tick above the ceiling", Edits: mistakes.In(
		"oracle.go", "	next = min(next, o.ceiling)\n",
		`	if !mistake("a tick above the ceiling") {
		next = min(next, o.ceiling)
	}
`,
	), Caught: []string{"ceiling", "tick-twice"}},
	{Name: "ticks that follow the clock back", Edits: mistakes.In(
		"oracle.go", "	if next <= o.last {\n		return 0, false\n",
		`	if mistake("ticks that follow the clock back") {
		next = min(ids.Tick(wall), o.ceiling)
	}
	if next <= o.last && !mistake("ticks that follow the clock back") {
		return 0, false
`,
	), Caught: []string{"tick-order", "tick-twice"}},
	{Name: "a ceiling that falls", Edits: mistakes.In(
		"applier.go", "if r.Ceiling <= a.st.TickCeiling {", `if r.Ceiling <= a.st.TickCeiling && !mistake("a ceiling that falls") {`,
	), Caught: []string{"ceiling-falls"}},
	{Name: "a reservation that raises the index", Edits: mistakes.In(
		"applier.go", "; !mere {", `; !mere || mistake("a reservation that raises the index") {`,
	), Caught: []string{"index"}},
	{Name: "a refusal that leaves something behind", Edits: mistakes.In(
		"applier.go", "		return st, nil, err\n",
		`		if mistake("a refusal that leaves something behind") {
			return a.st, nil, err
		}
		return st, nil, err
`,
	), Caught: []string{"refused"}},
	{Name: "bootstrapped twice", Edits: mistakes.In(
		"applier.go", `if a.st.ClusterId != "" {`, `if a.st.ClusterId != "" && !mistake("bootstrapped twice") {`,
	), Caught: []string{"cluster-id", "ids"}},
	{Name: "the published state changed", Edits: mistakes.In(
		"applier_members.go", "	a.st.Members = slices.Clone(a.st.Members)\n",
		`	if !mistake("the published state changed") {
		a.st.Members = slices.Clone(a.st.Members)
	}
`,
	), Caught: []string{"pure"}},
	{Name: "a field forgotten in a fork", Edits: mistakes.In(
		"applier.go", "TickCeiling: st.TickCeiling, NextObjectId: st.NextObjectId,\n",
		`TickCeiling: st.TickCeiling, NextObjectId: map[bool]uint64{true: 1, false: st.NextObjectId}[mistake("a field forgotten in a fork")],
`), Caught: []string{"ids"}},
	{Name: "an epoch that isn't compared", Edits: mistakes.In(
		"applier_partitions.go", "	if cur.Epoch != ch.ExpectedEpoch {", `	if cur.Epoch != ch.ExpectedEpoch && !mistake("an epoch that isn't compared") {`,
	), Caught: []string{"compare-and-set"}},
	{Name: "a primary from outside the in-sync set", Edits: mistakes.In(
		"applier_partitions.go", "	if !slices.Contains(cur.InSync, want.Primary) {",
		`	if !slices.Contains(cur.InSync, want.Primary) && !mistake("a primary from outside the in-sync set") {`,
	), Caught: []string{"primary-in-sync", "whole"}},
	{Name: "a primary without a handover", Edits: mistakes.In(
		"applier_partitions.go", "want.Primary != cur.HandoverTo && !failover {",
		`want.Primary != cur.HandoverTo && !failover && !mistake("a primary without a handover") {`,
	), Caught: []string{"handover"}},
	{Name: "in sync without having been a learner", Edits: mistakes.In(
		"applier_partitions.go", "		if !slices.Contains(cur.Replicas, id) {",
		`		if !slices.Contains(cur.Replicas, id) && !mistake("in sync without having been a learner") {`,
	), Caught: []string{"learner"}},
	{Name: "too few in sync by plan", Edits: mistakes.In(
		"applier_partitions.go", "shrinks && !failover && len(want.InSync) < least {",
		`shrinks && !failover && len(want.InSync) < least && !mistake("too few in sync by plan") {`,
	), Caught: []string{"min-in-sync"}},
	{Name: "an epoch that stays when the in-sync set changes", Edits: mistakes.In(
		"applier_partitions.go", "|| !sameSet(next.InSync, cur.InSync) {",
		`|| !sameSet(next.InSync, cur.InSync) && !mistake("an epoch that stays when the in-sync set changes") {`,
	), Caught: []string{"epoch"}},
	{Name: "a replica on who isn't a member", Edits: mistakes.In(
		"applier_partitions.go", "m == nil || m.State == removed {", `(m == nil || m.State == removed) && !mistake("a replica on who isn't a member") {`,
	), Caught: []string{"shape"}},
	{Name: "a primary that isn't in sync itself", Edits: mistakes.In(
		"applier_partitions.go", "	if !slices.Contains(want.InSync, want.Primary) {",
		`	if !slices.Contains(want.InSync, want.Primary) && !mistake("a primary that isn't in sync itself") {`,
	), Caught: []string{"shape", "whole", "primary-in-sync"}},
	{Name: "a removed member that comes back", Edits: mistakes.In(
		"applier_members.go", "	if old != nil && old.State == removed {", `	if old != nil && old.State == removed && !mistake("a removed member that comes back") {`,
	)}, // it keeps its state, removed
	{Name: "a live member's name taken", Edits: mistakes.In(
		"applier_members.go", "		if m.State != dead && m.State != drained {", `		if m.State != dead && m.State != drained && !mistake("a live member's name taken") {`,
	), Caught: []string{"removal"}},
	{Name: "two members of one name", Edits: mistakes.In(
		"applier_members.go", "m.Name != in.Name || m.Id == in.Id || m.State == removed {",
		`m.Name != in.Name || m.Id == in.Id || m.State == removed || mistake("two members of one name") {`,
	), Caught: []string{"names"}},
	{Name: "the last whole copy removed", Edits: mistakes.In(
		"applier_members.go", "		if len(p.InSync) == 1 && p.InSync[0] == m.Id {",
		`		if len(p.InSync) == 1 && p.InSync[0] == m.Id && !mistake("the last whole copy removed") {`,
	)}, // it is the primary too: the next one covers for it
	{Name: "a primary removed", Edits: mistakes.In(
		"applier_members.go", "		if p.Primary == m.Id {", `		if p.Primary == m.Id && !mistake("a primary removed") {`,
	), Caught: []string{"shape", "primary-in-sync"}},
	{Name: "a removal without a new epoch", Edits: mistakes.In(
		"applier_members.go", "		c.Epoch, c.EpochIndex = p.Epoch+1, a.index\n",
		`		if !mistake("a removal without a new epoch") {
			c.Epoch, c.EpochIndex = p.Epoch+1, a.index
		}
`,
	), Caught: []string{"epoch"}},
	{Name: "a live member removed", Edits: mistakes.In(
		"applier_members.go", "m.State != drained && !r.Force {", `m.State != drained && !r.Force && !mistake("a live member removed") {`,
	), Caught: []string{"removal"}},
	{Name: "drained while it holds replicas", Edits: mistakes.In(
		"applier_members.go", "n > 0 || m.Voter {", `(n > 0 || m.Voter) && !mistake("drained while it holds replicas") {`,
	), Caught: []string{"drained"}},
	{Name: "an object's id given twice", Edits: mistakes.In(
		"applier_objects.go", "	id = a.st.NextObjectId\n	a.st.NextObjectId++\n",
		`	id = a.st.NextObjectId
	if !mistake("an object's id given twice") {
		a.st.NextObjectId++
	}
`,
	), Caught: []string{"ids"}},
	{Name: "two objects of one name", Edits: mistakes.In(
		"applier_objects.go", "	if o, ok := objectNamed(objs, name); ok {\n		if !ifNotExists {",
		`	if o, ok := objectNamed(objs, name); ok && !mistake("two objects of one name") {
		if !ifNotExists {`,
	), Caught: []string{"names"}},
	{Name: "a view over what was dropped", Edits: mistakes.In(
		"applier_views.go", "	for _, dep := range def.DependsOn {\n", `	for _, dep := range def.DependsOn {
		if mistake("a view over what was dropped") {
			break
		}
`,
	), Caught: []string{"depends"}},
	{Name: "dropped with users", Edits: mistakes.In(
		"applier_objects.go", "		if u := users[o.id]; len(u) > 0 {", `		if u := users[o.id]; len(u) > 0 && !mistake("dropped with users") {`,
	), Caught: []string{"depends"}},
	{Name: "a table's log left behind", Edits: mistakes.In(
		"applier_objects.go", "		if drop[o.id] && o.log != 0 {", `		if drop[o.id] && o.log != 0 && !mistake("a table's log left behind") {`,
	), Caught: []string{"tables"}},
	{Name: "an entry that can't be decoded skipped", Edits: mistakes.In(
		"fsm.go", "	cmd, err := decodeCommand(l.Data)\n	if err != nil {\n",
		`	cmd, err := decodeCommand(l.Data)
	if err != nil && mistake("an entry that can't be decoded skipped") {
		return applied{err: err}
	}
	if err != nil {
`,
	), Caught: []string{"stops"}},
	{Name: "a snapshot that lacks something", Edits: mistakes.In(
		"codec.go", "func encodeState(st *internalv1.ClusterState) ([]byte, error) {\n",
		`func encodeState(st *internalv1.ClusterState) ([]byte, error) {
	if mistake("a snapshot that lacks something") {
		st = fork(st)
		st.TickCeiling = 0
	}
`,
	), Caught: []string{"states-agree"}},
}

// TestDeliberateFaults runs the simulation with each mistake until a check catches it. DESIGN.md has the list.
func TestDeliberateFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the package anew")
	}
	bin := mistakes.Build(t, "coordinator", deliberateFaults)
	if check, out := simulate(t, bin, "none", 100); check != "" {
		t.Fatalf("without a mistake %s says:\n%s", check, out)
	}
	for _, f := range deliberateFaults {
		t.Run(f.Name, func(t *testing.T) {
			rounds := 2000
			if len(f.Caught) == 0 {
				rounds = 300
			}
			check, out := simulate(t, bin, f.Name, rounds)
			f.Judge(t, check, out)
		})
	}
}

var caughtBy = regexp.MustCompile(`step \d+: \[([a-z-]+)\]`)

// simulate runs schedules with a mistake until a check finds something, and returns its name.
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
