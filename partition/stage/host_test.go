package stage

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/partition"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/proto/internalv1"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/storage"
)

// alone is the coordinator of a cluster of one node, whose configuration never changes.
type alone struct{}

func (alone) RemoveFromInSync(context.Context, ids.PartitionID, ids.Epoch, ids.NodeID) error {
	return fault.New(fault.Conflict, "there is one node")
}
func (alone) AddToInSync(context.Context, ids.PartitionID, ids.Epoch, ids.NodeID) error {
	return fault.New(fault.Conflict, "there is one node")
}
func (alone) CompleteHandover(context.Context, ids.PartitionID, ids.Epoch, ids.NodeID) error {
	return fault.New(fault.Conflict, "there is one node")
}
func (alone) RequestTick() {}

// hostLogs is a Host's logs as a LogReader.
type hostLogs struct{ *partition.Host }

func (h hostLogs) ReadTicks(p ids.PartitionID, s ids.StreamID, from ids.Offset, maxTick ids.Tick, fn func(*LogBatch) (bool, error)) error {
	return h.Host.ReadTicks(p, s, from, maxTick, func(b *partition.Batch) (bool, error) {
		return fn(&LogBatch{BaseOffset: b.BaseOffset, Count: b.Count, Tick: b.Tick, TimeMicros: b.TimeMicros, Raw: b.Raw})
	})
}

func (h hostLogs) End(p ids.PartitionID, s ids.StreamID) (start, end ids.Offset, err error) {
	e, err := h.Host.End(p, s)
	return e.Start, e.End, err
}

// TestWithHost runs views over the real log of one node: appends while ticks go on, with a restart in between.
func TestWithHost(t *testing.T) {
	const partitions = 4
	logFS, stateFS := vfs.NewMem(), vfs.NewMem()
	st := &internalv1.ClusterState{
		Version: 1, ClusterId: "one", Index: 10, PartitionCount: partitions, Replicas: 1,
		Members: []*internalv1.Member{{Id: "n0", State: internalv1.MemberState_MEMBER_STATE_ALIVE}},
		Streams: []*internalv1.StreamDef{{Stream: streamDef(), CreatedTick: uint64(streamCreated)}},
	}
	for p := range partitions {
		st.Partitions = append(st.Partitions, &internalv1.PartitionConfig{
			Id: uint32(p), Epoch: 1, Primary: "n0", Replicas: []string{"n0"}, InSync: []string{"n0"}, EpochIndex: 5})
	}
	views := testViews()
	for i, v := range views {
		raw, err := plan.Marshal(v.plan)
		if err != nil {
			t.Fatal(err)
		}
		st.Views = append(st.Views, &internalv1.ViewDef{Id: uint64(100 + i), Name: v.name, Plan: raw, CreatedTick: uint64(streamCreated) + 40_000})
	}
	m := &model{created: streamCreated + 40_000, events: make([][]event, partitions)}
	tick := streamCreated
	for run := range uint64(3) {
		tick = runWithHost(t, st, m, views, logFS, stateFS, rand.New(rand.NewPCG(run, 1)), tick)
	}
}

func runWithHost(t *testing.T, st *internalv1.ClusterState, m *model, views []testView, logFS, stateFS vfs.FS, rng *rand.Rand, tick ids.Tick) ids.Tick {
	o := storage.DefaultOptions()
	o.FS, o.ReserveBytes, o.Logger = logFS, 0, quiet()
	logStore, err := storage.OpenLog("log", o)
	if err != nil {
		t.Fatal(err)
	}
	o.FS = stateFS
	stateStore, err := storage.OpenState("state", o)
	if err != nil {
		t.Fatal(err)
	}
	hc := partition.DefaultConfig()
	hc.Node, hc.Coordinator = "n0", alone{}
	noPeers := peersFunc(func(ids.NodeID) (grpc.ClientConnInterface, error) { return nil, errors.New("no peers") })
	host, err := partition.NewHost(hc, logStore, noPeers, quiet())
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.NodeID, cfg.Workers = "n0", 2
	rt, err := New(cfg, Deps{Store: stateStore, Logs: hostLogs{host}, Peers: noPeers, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	host.OnClosed(func(c partition.Closing) {
		out := Closing{Partition: c.Partition, Epoch: c.Epoch, Tick: c.Tick}
		for _, d := range c.Data {
			out.Data = append(out.Data, StreamTick{d.Stream, d.Tick})
		}
		rt.OnClosed(out)
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := host.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	running.Go(func() {
		if err := rt.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	host.Configure(st)
	rt.Configure(st)
	for range 40 {
		tick += ids.Tick(1000 + rng.IntN(20_000))
		host.Tick(tick, st.Index)
		appendAll(t, host, m, rng, tick)
	}
	last := tick // what was appended is stamped with it; the next one closes it
	tick += 5000
	host.Tick(tick, st.Index)
	parts := make([]ids.PartitionID, len(st.Partitions))
	for p := range parts {
		parts[p] = ids.PartitionID(p)
	}
	for i, v := range views {
		id := ids.StreamID(100 + i)
		got := map[string]int64{}
		rctx, stop := context.WithTimeout(ctx, wait)
		if _, err := rt.BeginRead(rctx, id, parts, last); err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			if err := rt.Read(rctx, id, p, last, nil, func(d *record.Delta) error { addRows(got, d); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		stop()
		if want := v.naive(m, last); !maps.Equal(got, want) {
			t.Fatalf("%s at %d has\n  %s\nwant\n  %s", v.name, last, show(got), show(want))
		}
	}
	cancel()
	running.Wait()
	if err := errors.Join(logStore.Close(), stateStore.Close()); err != nil {
		t.Fatal(err)
	}
	return tick
}

// appendAll appends to some partitions and waits until that is committed; the model learns the ticks from the answers.
func appendAll(t *testing.T, host *partition.Host, m *model, rng *rand.Rand, tick ids.Tick) {
	t.Helper()
	type answer struct {
		p      ids.PartitionID
		events []event
		res    partition.AppendResult
		err    error
	}
	answers := make(chan answer, len(m.events))
	n := 0
	for p := range m.events {
		if rng.IntN(2) == 0 {
			continue
		}
		n++
		a := answer{p: ids.PartitionID(p), events: randomEvents(rng, tick, 1+rng.IntN(30))}
		var b record.BatchBuilder
		for _, e := range a.events {
			b.Add(nil, false, e.json())
		}
		host.Append(partition.AppendRequest{Partition: a.p, Stream: testStream, Batch: &millracev1.Batch{
			Partition: uint32(p), Count: uint32(b.Count()), UncompressedBytes: uint32(b.Bytes()),
			Crc32C: record.Checksum(b.Payload()), Payload: b.Payload(),
		}}, func(res partition.AppendResult, err error) {
			a.res, a.err = res, err
			answers <- a
		})
	}
	for range n {
		select {
		case a := <-answers:
			if a.err != nil {
				t.Fatal(a.err)
			}
			for i := range a.events {
				a.events[i].p, a.events[i].tick = a.p, a.res.Tick
			}
			m.events[a.p] = append(m.events[a.p], a.events...)
		case <-time.After(wait):
			t.Fatal("an append isn't answered")
		}
	}
}
