package coordinator

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/proto"

	"github.com/millrace/millrace/internal/fault"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// TestApplier runs the steps of testdata/applier: each line is a command, its output what the applier did. Rewrite with
// go test ./coordinator -run TestApplier -rewrite.
func TestApplier(t *testing.T) {
	datadriven.Walk(t, "testdata/applier", func(t *testing.T, path string) {
		st, index := emptyState(), uint64(1)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "show" {
				return showState(st)
			}
			index++
			if d.Cmd == "voters" {
				st = setVoters(st, index, listArg(d, "ids"))
				return showMembers(st)
			}
			before := proto.CloneOf(st)
			cmd := testCommand(t, d)
			next, res, err := apply(st, index, cmd)
			if !proto.Equal(st, before) {
				t.Fatalf("%s: the published state was changed", d.Pos)
			}
			again, _, _ := apply(st, index, cmd)
			if !proto.Equal(next, again) {
				t.Fatalf("%s: applied twice, two results", d.Pos)
			}
			if err != nil && next != st {
				t.Fatalf("%s: a refused command changed the state", d.Pos)
			}
			b, encErr := encodeState(next)
			back, decErr := decodeState(b)
			if encErr != nil || decErr != nil || !proto.Equal(back, next) {
				t.Fatalf("%s: the state doesn't survive a snapshot: %v, %v", d.Pos, encErr, decErr)
			}
			st = next
			return showResult(res, err, next, before)
		})
	})
}

func arg(d *datadriven.TestData, key string) string {
	if l := listArg(d, key); len(l) > 0 {
		return l[0]
	}
	return ""
}

func listArg(d *datadriven.TestData, key string) []string {
	for _, a := range d.CmdArgs {
		if a.Key == key {
			return a.Vals
		}
	}
	return nil
}

func numArg(d *datadriven.TestData, key string) (n uint64) {
	if s := arg(d, key); s != "" {
		if _, err := fmt.Sscan(s, &n); err != nil {
			panic(err)
		}
	}
	return n
}

func memberArg(d *datadriven.TestData) *internalv1.Member {
	m := &internalv1.Member{Id: arg(d, "id"), Name: arg(d, "name"), Zone: arg(d, "zone"), Grpc: arg(d, "grpc"), Weight: 1}
	if m.Name == "" {
		m.Name = m.Id
	}
	if m.Grpc == "" {
		m.Grpc = m.Id + ":1"
	}
	return m
}

func memberStateOf(word string) internalv1.MemberState {
	for s := range internalv1.MemberState_name {
		if stateWord(internalv1.MemberState(s)) == word {
			return internalv1.MemberState(s)
		}
	}
	return internalv1.MemberState_MEMBER_STATE_UNSPECIFIED
}

func testCommand(t *testing.T, d *datadriven.TestData) *internalv1.Command {
	cmd := &internalv1.Command{Version: commandVersion, Tick: numArg(d, "tick")}
	switch d.Cmd {
	case "bootstrap":
		cmd.Op = &internalv1.Command_Bootstrap{Bootstrap: &internalv1.Bootstrap{
			ClusterId: arg(d, "cluster"), PartitionCount: uint32(numArg(d, "partitions")), Replicas: uint32(numArg(d, "replicas")), Member: memberArg(d),
		}}
	case "register":
		cmd.Op = &internalv1.Command_RegisterMember{RegisterMember: &internalv1.RegisterMember{ClusterId: arg(d, "cluster"), Member: memberArg(d)}}
	case "set-state":
		s := &internalv1.SetMemberState{Id: arg(d, "id"), State: memberStateOf(arg(d, "to"))}
		for _, f := range listArg(d, "from") {
			s.From = append(s.From, memberStateOf(f))
		}
		cmd.Op = &internalv1.Command_SetMemberState{SetMemberState: s}
	case "remove":
		cmd.Op = &internalv1.Command_RemoveMember{RemoveMember: &internalv1.RemoveMember{Id: arg(d, "id"), Force: d.HasArg("force")}}
	case "create-stream":
		cmd.Op = &internalv1.Command_CreateStream{CreateStream: &internalv1.CreateStream{
			Def: &internalv1.StreamDef{Stream: &millracev1.Stream{Name: arg(d, "name")}}, IfNotExists: d.HasArg("if-not-exists"),
		}}
	case "create-table":
		cmd.Op = &internalv1.Command_CreateTable{CreateTable: &internalv1.CreateTable{
			Log:         &internalv1.StreamDef{Stream: &millracev1.Stream{Name: arg(d, "name"), PrimaryKey: listArg(d, "key")}},
			IfNotExists: d.HasArg("if-not-exists"),
		}}
	case "create-view":
		v := &internalv1.ViewDef{Name: arg(d, "name")}
		for _, c := range listArg(d, "columns") {
			v.Columns = append(v.Columns, &millracev1.Column{Name: c, Type: "bigint"})
		}
		for _, s := range listArg(d, "on") {
			var id uint64
			if _, err := fmt.Sscan(s, &id); err != nil {
				t.Fatal(err)
			}
			v.DependsOn = append(v.DependsOn, id)
		}
		cmd.Op = &internalv1.Command_CreateView{CreateView: &internalv1.CreateView{Def: v, IfNotExists: d.HasArg("if-not-exists"), Replace: d.HasArg("replace")}}
	case "swap-view":
		cmd.Op = &internalv1.Command_SwapView{SwapView: &internalv1.SwapView{Id: numArg(d, "id")}}
	case "drop-replaced":
		cmd.Op = &internalv1.Command_DropReplaced{DropReplaced: &internalv1.DropReplaced{Id: numArg(d, "id")}}
	case "create-index":
		cmd.Op = &internalv1.Command_CreateIndex{CreateIndex: &internalv1.CreateIndex{
			On: arg(d, "on"), Object: numArg(d, "id"), Def: &internalv1.IndexDef{Name: arg(d, "name"), Columns: listArg(d, "columns")}, IfNotExists: d.HasArg("if-not-exists"),
		}}
	case "drop-index":
		cmd.Op = &internalv1.Command_DropIndex{DropIndex: &internalv1.DropIndex{Name: arg(d, "name"), IfExists: d.HasArg("if-exists")}}
	case "restart-view":
		cmd.Op = &internalv1.Command_RestartView{RestartView: &internalv1.RestartView{Id: numArg(d, "id"), CreatedTick: numArg(d, "created")}}
	case "drop":
		k := internalv1.ObjectKind(internalv1.ObjectKind_value["OBJECT_KIND_"+strings.ToUpper(arg(d, "kind"))])
		cmd.Op = &internalv1.Command_DropObjects{DropObjects: &internalv1.DropObjects{
			Names: listArg(d, "names"), Kind: k, IfExists: d.HasArg("if-exists"), Cascade: d.HasArg("cascade"),
		}}
	case "set":
		cmd.Op = &internalv1.Command_SetPartition{SetPartition: &internalv1.SetPartition{Changes: partitionChanges(d)}}
	case "force":
		ch := partitionChanges(d)[0]
		cmd.Op = &internalv1.Command_ForcePartition{ForcePartition: &internalv1.ForcePartition{Config: ch.Config, ExpectedEpoch: ch.ExpectedEpoch}}
	case "reserve":
		cmd.Op = &internalv1.Command_ReserveTicks{ReserveTicks: &internalv1.ReserveTicks{Ceiling: numArg(d, "ceiling")}}
	default:
		t.Fatalf("%s: unknown step %s", d.Pos, d.Cmd)
	}
	return cmd
}

// partitionChanges takes one change from the line's arguments, or one for each line of input.
func partitionChanges(d *datadriven.TestData) []*internalv1.PartitionChange {
	lines := []datadriven.TestData{*d}
	if d.Input != "" {
		lines = nil
		for _, l := range strings.Split(d.Input, "\n") {
			_, args, err := datadriven.ParseLine("set " + l)
			if err != nil {
				panic(err)
			}
			lines = append(lines, datadriven.TestData{CmdArgs: args})
		}
	}
	var out []*internalv1.PartitionChange
	for _, l := range lines {
		out = append(out, &internalv1.PartitionChange{
			Config: &internalv1.PartitionConfig{
				Id: uint32(numArg(&l, "p")), Primary: arg(&l, "primary"), Replicas: listArg(&l, "replicas"), InSync: listArg(&l, "in-sync"), HandoverTo: arg(&l, "handover"),
			},
			ExpectedEpoch: numArg(&l, "epoch"), Failover: l.HasArg("failover"),
		})
	}
	return out
}

func showResult(res *internalv1.CommandResult, err error, next, before *internalv1.ClusterState) string {
	if err != nil {
		var f *fault.Error
		if !errors.As(err, &f) {
			return "not a fault: " + err.Error()
		}
		return fmt.Sprintf("refused: %v %s %s: %v\n", f.Kind, f.GetReason(), f.GetSQLState(), err)
	}
	var b strings.Builder
	switch {
	case proto.Equal(next, before):
		b.WriteString("ok, nothing changed")
	case next.Index == before.Index:
		b.WriteString("ok, for the leader only")
	default:
		fmt.Fprintf(&b, "ok at %d", res.Index)
	}
	if res.ObjectId != 0 {
		fmt.Fprintf(&b, " object=%d", res.ObjectId)
	}
	if res.Notice != "" {
		fmt.Fprintf(&b, " notice=%q", res.Notice)
	}
	if len(res.Dropped) > 0 {
		fmt.Fprintf(&b, " dropped=%v", res.Dropped)
	}
	if res.Member != nil {
		fmt.Fprintf(&b, " member=%s", showMember(res.Member))
	}
	b.WriteString("\n")
	for _, p := range res.Partitions {
		b.WriteString("  " + showPartition(p) + "\n")
	}
	for _, r := range res.Refused {
		fmt.Fprintf(&b, "  refused %d (epoch %d): %s: %s\n", r.Partition, r.Epoch, r.Reason, r.Message)
	}
	return b.String()
}

func showMember(m *internalv1.Member) string {
	s := fmt.Sprintf("%s/%s %s %s", m.Id, m.Name, m.Grpc, stateWord(m.State))
	if m.Voter {
		s += " voter"
	}
	return s
}

func showMembers(st *internalv1.ClusterState) string {
	var b strings.Builder
	for _, m := range st.Members {
		b.WriteString("member " + showMember(m) + "\n")
	}
	return b.String()
}

func showPartition(p *internalv1.PartitionConfig) string {
	s := fmt.Sprintf("partition %d epoch=%d@%d primary=%s replicas=%v in-sync=%v", p.Id, p.Epoch, p.EpochIndex, p.Primary, p.Replicas, p.InSync)
	if p.HandoverTo != "" {
		s += " handover=" + p.HandoverTo
	}
	if p.ForcedEpoch != 0 {
		s += fmt.Sprint(" forced=", p.ForcedEpoch)
	}
	return s
}

func showState(st *internalv1.ClusterState) string {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster %q index=%d replicas=%d ceiling=%d next=%d\n", st.ClusterId, st.Index, st.Replicas, st.TickCeiling, st.NextObjectId)
	b.WriteString(showMembers(st))
	for _, p := range st.Partitions {
		b.WriteString(showPartition(p) + "\n")
	}
	for _, s := range st.Streams {
		fmt.Fprintf(&b, "stream %d %q tick=%d\n", s.Stream.Id, s.Stream.Name, s.CreatedTick)
	}
	for _, v := range st.Views {
		fmt.Fprintf(&b, "view %d %q on=%v tick=%d", v.Id, v.Name, v.DependsOn, v.CreatedTick)
		if v.Replaces != 0 || v.SwapIndex != 0 {
			fmt.Fprintf(&b, " replaces=%d replaced-by=%d swap=%d", v.Replaces, v.ReplacedBy, v.SwapIndex)
		}
		for _, ix := range v.Indexes {
			fmt.Fprintf(&b, " index %d %s%v", ix.Id, ix.Name, ix.Columns)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func FuzzDecodeCommand(f *testing.F) {
	for _, cmd := range []*internalv1.Command{
		{Version: 1, Op: &internalv1.Command_ReserveTicks{ReserveTicks: &internalv1.ReserveTicks{Ceiling: 7}}},
		{Version: 1, Op: &internalv1.Command_Bootstrap{Bootstrap: &internalv1.Bootstrap{ClusterId: "c", PartitionCount: 2, Replicas: 1, Member: &internalv1.Member{Id: "a", Name: "a", Grpc: "a:1"}}}},
		{Version: 1, Op: &internalv1.Command_SetPartition{SetPartition: &internalv1.SetPartition{Changes: []*internalv1.PartitionChange{{Config: &internalv1.PartitionConfig{Id: 1, Primary: "a", Replicas: []string{"a"}, InSync: []string{"a"}}, ExpectedEpoch: 1}}}}},
		createStream("s"), {Version: 9},
	} {
		b, err := proto.Marshal(cmd)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	base := emptyState()
	for i, cmd := range []*internalv1.Command{
		{Op: &internalv1.Command_Bootstrap{Bootstrap: &internalv1.Bootstrap{ClusterId: "c", PartitionCount: 2, Replicas: 2, Member: &internalv1.Member{Id: "a", Name: "a", Grpc: "a:1"}}}},
		{Op: &internalv1.Command_RegisterMember{RegisterMember: &internalv1.RegisterMember{Member: &internalv1.Member{Id: "b", Name: "b", Grpc: "b:1"}}}},
		createStream("s"),
	} {
		var err error
		if base, _, err = apply(base, uint64(i+2), cmd); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		cmd, err := decodeCommand(b)
		if err != nil {
			return
		}
		for _, st := range []*internalv1.ClusterState{emptyState(), base} {
			before := proto.CloneOf(st)
			next, _, _ := apply(st, 99, cmd)
			if !proto.Equal(st, before) {
				t.Fatal("the published state was changed")
			}
			checkInvariants(t, next)
		}
	})
}

// checkInvariants holds for every state that the applier makes.
func checkInvariants(t *testing.T, st *internalv1.ClusterState) {
	t.Helper()
	b, err := encodeState(st)
	if err != nil {
		return // a name that isn't UTF-8 in a field that no rule covers can't be stored, and never reached the log
	}
	if _, err := decodeState(b); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, o := range objects(st) {
		if names[o.name] || o.id == 0 || o.id >= st.NextObjectId {
			t.Fatalf("object %+v of %d", o, st.NextObjectId)
		}
		names[o.name] = true
	}
	for _, p := range st.Partitions {
		a := application{st: st}
		if err := a.checkShape(p); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzDecodeState(f *testing.F) {
	st, _, err := apply(emptyState(), 2, &internalv1.Command{Op: &internalv1.Command_Bootstrap{Bootstrap: &internalv1.Bootstrap{
		ClusterId: "c", PartitionCount: 2, Replicas: 2, Member: &internalv1.Member{Id: "a", Name: "a", Grpc: "a:1"},
	}}})
	if err != nil {
		f.Fatal(err)
	}
	b, err := encodeState(st)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	snap, err := proto.Marshal(&internalv1.RaftSnapshot{Version: 1, Id: "1-2", State: b})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(snap)
	f.Fuzz(func(t *testing.T, b []byte) {
		if st, err := decodeState(b); err == nil {
			// What decodes is fit to be worked on.
			_, _, _ = apply(st, st.Index+1, createStream("x"))
			_, _, _ = apply(st, st.Index+1, &internalv1.Command{Op: &internalv1.Command_RemoveMember{RemoveMember: &internalv1.RemoveMember{Id: "a"}}})
			setVoters(st, st.Index+1, []string{"a"})
		}
		if snap, err := decodeSnapshot(b); err == nil {
			_, _ = snapshotMeta(snap)
		}
	})
}
