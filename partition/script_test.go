package partition

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// TestReplica runs the scripts of testdata/replica: protocol steps in; writes, messages, answers and closed ticks out.
// Run it with -rewrite to write what happens into the scripts.
func TestReplica(t *testing.T) {
	datadriven.Walk(t, "testdata/replica", func(t *testing.T, path string) {
		s := &sim{t: t, rng: rand.New(rand.NewPCG(1, 1)), committed: map[LSN]header{}, committers: map[ids.Epoch]ids.NodeID{}, healing: true, out: &strings.Builder{}}
		st := &internalv1.ClusterState{Index: 1, Replicas: 3, NextObjectId: 3}
		for i := range 2 {
			st.Streams = append(st.Streams, &internalv1.StreamDef{Stream: &millracev1.Stream{Id: uint64(i + 1)}})
		}
		s.states = []*internalv1.ClusterState{st}
		for _, id := range []ids.NodeID{"a", "b", "c"} {
			s.nodes = append(s.nodes, &simNode{s: s, id: id, disk: simDisk{}, up: true, boot: 1, opt: &options{
				holdWait: time.Second, ackTimeout: time.Second, startGrace: time.Second, commitTimeout: 5 * time.Second, copyWindow: 1000,
			}, wake: map[*progress]bool{}, copies: map[*progress]bool{}, links: map[ids.NodeID]bool{}})
		}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.t = t
			s.out.Reset()
			s.script(d)
			if s.out.Len() == 0 {
				return "nothing\n"
			}
			return s.out.String()
		})
	})
}

// script runs one command. Its arguments without a value are nodes.
func (s *sim) script(d *datadriven.TestData) {
	var on []*simNode
	arg := map[string][]string{}
	for _, a := range d.CmdArgs {
		if len(a.Vals) == 0 {
			on = append(on, s.node(ids.NodeID(a.Key)))
		}
		arg[a.Key] = a.Vals
	}
	if len(on) == 0 {
		on = s.nodes
	}
	num := func(key string) (n uint64) {
		if v := arg[key]; len(v) > 0 {
			fmt.Sscan(v[0], &n)
		}
		return n
	}
	switch d.Cmd {
	case "config": // publish a configuration, and let nodes learn it
		last := s.last()
		cfg := &internalv1.PartitionConfig{Epoch: num("epoch"), EpochIndex: last.Index + 1, Replicas: arg["replicas"], InSync: arg["in_sync"], Primary: arg["primary"][0]}
		if old := last.Partitions; len(old) > 0 && old[0].Epoch == cfg.Epoch {
			cfg.EpochIndex = old[0].EpochIndex
		}
		if h := arg["handover"]; len(h) > 0 {
			cfg.HandoverTo = h[0]
		}
		s.states = append(s.states, &internalv1.ClusterState{
			Index: last.Index + 1, Replicas: 3, Streams: last.Streams, NextObjectId: 3, Partitions: []*internalv1.PartitionConfig{cfg},
		})
	case "learn": // apply the newest configuration
		for _, n := range on {
			n.applied = len(s.states) - 1
			n.learn()
		}
	case "connect":
		for _, n := range on {
			for _, o := range s.nodes {
				if o != n && o.up && n.r != nil {
					n.links[o.id] = true
					n.r.connected(o.id)
				}
			}
			n.drain()
		}
	case "tick":
		index := s.last().Index
		if len(arg["index"]) > 0 {
			index = num("index")
		}
		for _, n := range on {
			n.r.tick(s.now, ids.Tick(num("t")), index)
			n.drain()
		}
	case "append":
		seq := num("sequence")
		b := batchOf(num("producer"), seq, fmt.Sprintf("value %d", seq))
		stream := max(num("stream"), 1)
		on[0].r.append(s.now, &appendReq{
			header:  header{stream: ids.StreamID(stream), count: 1, producer: num("producer"), sequence: seq, uncompressed: b.UncompressedBytes, payloadLen: uint32(len(b.Payload)), payloadCRC: b.Crc32C},
			payload: b.Payload, seen: ids.Tick(num("seen")), done: func(res AppendResult, err error) {
				if err != nil {
					s.trace("answer to %d: %v", seq, err)
					return
				}
				s.trace("answer to %d: offset %d, tick %d, duplicate %v", seq, res.BaseOffset, res.Tick, res.Duplicate)
			},
		})
		on[0].drain()
	case "sync":
		for _, n := range on {
			n.flush(1000)
		}
	case "send":
		for _, n := range on {
			before := len(s.net)
			n.send()
			for _, m := range s.net[before:] {
				s.trace("%v", m)
			}
		}
	case "ack":
		for _, n := range on {
			n.ack = true
			before := len(s.net)
			n.sendAck()
			for _, m := range s.net[before:] {
				s.trace("%v", m)
			}
		}
	case "deliver": // all that is under way to these nodes, in order
		for _, m := range slices.Clone(s.net) {
			if slices.Contains(on, s.node(m.to)) {
				s.net = s.net[1:]
				s.hand(m)
			} else {
				s.net = append(s.net[1:], m)
			}
		}
	case "lose":
		s.trace("%d messages lost", len(s.net))
		s.net = nil
	case "settle": // send, sync and acknowledge until nothing happens
		for range 20 {
			for _, n := range s.nodes {
				n.send()
			}
			for len(s.net) > 0 {
				s.deliverFirst()
			}
			for _, n := range s.nodes {
				n.flush(1000)
				n.sendAck()
			}
		}
	case "elapse":
		s.now += time.Duration(num("ms")) * time.Millisecond
		for _, n := range on {
			if n.up && n.r != nil {
				n.r.elapse(s.now)
				n.drain()
			}
		}
	case "crash":
		for _, n := range on {
			n.up, n.r, n.queue = false, nil, nil
		}
		s.trace("crashed")
	case "start":
		for _, n := range on {
			n.boots()
		}
	case "damage":
		for _, n := range on {
			n.damaged = true
			n.r.fail(n.r.corrupt("a script says so"))
			n.drain()
		}
	case "status":
		for _, n := range on {
			r := n.r
			s.trace("%s: %v in %v, end %d, durable %d, commit %d, open %d, closed %d", n.id, r.role, r.hard.term, r.end, r.durable, r.commit, r.primary.open, r.primary.closed)
		}
	default:
		d.Fatalf(s.t, "no such command")
	}
}

func (s *sim) deliverFirst() {
	if len(s.net) > 0 {
		m := s.net[0]
		s.net = s.net[1:]
		s.hand(m)
	}
}

// describe tells the effects of an event, for a script.
func (s *sim) describe(n *simNode, fx *effects) {
	for _, w := range fx.writes {
		if e := w.entry; e != nil {
			s.trace("  %s writes LSN %d %v: stream %d at %d, tick %d", n.id, e.lsn, e.term, e.stream, e.base, e.tick)
			continue
		}
		kinds := []string{}
		for _, m := range w.muts {
			kind := "set"
			switch {
			case m.hi != nil:
				kind = "delete range"
			case m.value == nil:
				kind = "delete"
			}
			if !slices.Contains(kinds, kind) {
				kinds = append(kinds, kind)
			}
		}
		s.trace("  %s writes: %s", n.id, strings.Join(kinds, ", "))
	}
	for _, c := range fx.calls {
		s.trace("  %s asks to %s %s in epoch %d", n.id, [...]string{"remove", "add", "hand over to"}[c.kind], c.node, c.epoch)
	}
}
