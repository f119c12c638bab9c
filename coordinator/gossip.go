package coordinator

import (
	"errors"
	"log"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"google.golang.org/protobuf/proto"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// gossip finds peers and spreads their addresses. A node's gossip name is its id and the process's incarnation, so that
// one which restarts at another address is new to the others at once, whatever became of its old self. Nodes of another
// cluster are neither listened to nor heard.
type gossip struct {
	log  *slog.Logger
	list *memberlist.Memberlist
	addr string // where peers reach it

	mu      sync.Mutex
	self    *internalv1.GossipMeta
	peers   map[string]peer // by gossip name
	foreign string          // another cluster's id, of a node that we met
	changed func()          // called after every change, not under mu
}

type peer struct {
	meta *internalv1.GossipMeta
	seen time.Time
}

// Gossip's pace: relaxed, as nothing waits for it. A dead node is found within about 5 s.
const (
	gossipInterval = 400 * time.Millisecond // also what it takes to say goodbye
	gossipProbe    = time.Second
	gossipSync     = 30 * time.Second
	gossipForget   = 10 * time.Second // how long the dead are told that they are
	gossipTCP      = 3 * time.Second
)

// startGossip takes over the sockets and joins nobody yet.
func startGossip(sockets *GossipSockets, incarnation string, self *internalv1.GossipMeta, l *slog.Logger, changed func()) (*gossip, error) {
	t := newGossipTransport(sockets)
	addr, err := t.addr()
	if err != nil {
		return nil, errors.Join(err, t.Shutdown())
	}
	g := &gossip{log: l.With("part", "gossip"), addr: addr, self: self, peers: map[string]peer{}, changed: changed}
	c := memberlist.DefaultLANConfig()
	c.Name = self.NodeId + "/" + incarnation
	c.Transport = t
	c.GossipInterval, c.ProbeInterval, c.PushPullInterval = gossipInterval, gossipProbe, gossipSync
	c.GossipToTheDeadTime, c.TCPTimeout = gossipForget, gossipTCP
	c.EnableCompression = false
	c.Logger = log.New(&gossipLog{log: g.log, damp: &damper{}}, "", 0)
	c.Delegate, c.Events, c.Alive, c.Merge = g, g, g, g
	g.list, err = memberlist.Create(c)
	if err != nil {
		return nil, errors.Join(fault.Wrap(fault.Unavailable, err, "starting gossip at %s", addr), t.Shutdown())
	}
	return g, nil
}

// join contacts the addresses and tells how many answered.
func (g *gossip) join(addrs []string) (int, error) {
	if len(addrs) == 0 {
		return 0, nil
	}
	return g.list.Join(addrs)
}

// settle tells the others that this node belongs to cluster.
func (g *gossip) settle(cluster string) {
	g.mu.Lock()
	g.self.ClusterId = cluster
	g.mu.Unlock()
	// An update that nobody confirms in time reaches them with the next exchange.
	_ = g.list.UpdateNode(100 * time.Millisecond)
}

// metForeign returns the id of another cluster whose node answered, if any.
func (g *gossip) metForeign() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.foreign
}

// inCluster lists the live peers that belong to a cluster.
func (g *gossip) inCluster() []*internalv1.GossipMeta {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []*internalv1.GossipMeta
	for _, p := range g.peers {
		if p.meta.ClusterId != "" && p.meta.NodeId != g.self.NodeId {
			out = append(out, p.meta)
		}
	}
	return out
}

// find returns what gossip last heard of a live member.
func (g *gossip) find(id ids.NodeID) (*internalv1.GossipMeta, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var best peer
	for _, p := range g.peers {
		if p.meta.NodeId == string(id) && (best.meta == nil || p.seen.After(best.seen)) {
			best = p
		}
	}
	return best.meta, best.meta != nil
}

func (g *gossip) stop(leave time.Duration) {
	if leave > 0 {
		_ = g.list.Leave(leave) // nobody need hear it: they find out
	}
	if err := g.list.Shutdown(); err != nil {
		g.log.Debug("gossip shutdown", "error", err)
	}
}

func parseMeta(b []byte) *internalv1.GossipMeta {
	m := &internalv1.GossipMeta{}
	if err := proto.Unmarshal(b, m); err != nil || m.NodeId == "" {
		return nil
	}
	return m
}

// admit refuses nodes of another cluster and remembers that there are some.
func (g *gossip) admit(n *memberlist.Node) error {
	m := parseMeta(n.Meta)
	if m == nil {
		return fault.New(fault.Invalid, "%s is not a node of Millrace", n.Address())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if own := g.self.ClusterId; own != "" && m.ClusterId != "" && m.ClusterId != own {
		g.foreign = m.ClusterId
		return foreignCluster(own, m.ClusterId)
	}
	return nil
}

// NotifyAlive implements memberlist.AliveDelegate.
func (g *gossip) NotifyAlive(n *memberlist.Node) error { return g.admit(n) }

// NotifyMerge implements memberlist.MergeDelegate.
func (g *gossip) NotifyMerge(nodes []*memberlist.Node) error {
	for _, n := range nodes {
		if n.State == memberlist.StateDead || n.State == memberlist.StateLeft {
			continue
		}
		if err := g.admit(n); err != nil {
			return err
		}
	}
	return nil
}

func (g *gossip) note(n *memberlist.Node, gone bool) {
	m := parseMeta(n.Meta)
	g.mu.Lock()
	_, known := g.peers[n.Name]
	switch {
	case gone || m == nil:
		delete(g.peers, n.Name)
	case known:
		g.peers[n.Name] = peer{m, g.peers[n.Name].seen}
	default:
		// A new process of a node: what came before it is gone, though memberlist takes some seconds to find out.
		for name, p := range g.peers {
			if p.meta.NodeId == m.NodeId {
				delete(g.peers, name)
			}
		}
		g.peers[n.Name] = peer{m, time.Now()}
	}
	g.mu.Unlock()
	g.changed()
}

// NotifyJoin implements memberlist.EventDelegate.
func (g *gossip) NotifyJoin(n *memberlist.Node) { g.note(n, false) }

// NotifyLeave implements memberlist.EventDelegate.
func (g *gossip) NotifyLeave(n *memberlist.Node) { g.note(n, true) }

// NotifyUpdate implements memberlist.EventDelegate.
func (g *gossip) NotifyUpdate(n *memberlist.Node) { g.note(n, false) }

// NodeMeta implements memberlist.Delegate.
func (g *gossip) NodeMeta(limit int) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	b, err := proto.Marshal(g.self)
	if err != nil || len(b) > limit { // the fields' own bounds keep it below
		return nil
	}
	return b
}

// NotifyMsg implements memberlist.Delegate; nothing is sent that way.
func (g *gossip) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (g *gossip) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (g *gossip) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (g *gossip) MergeRemoteState([]byte, bool) {}
