package coordinator

import (
	"crypto/rand"
	"encoding/hex"
	"errors"

	"google.golang.org/protobuf/proto"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/storage"
)

const (
	nodeIDKey    = "node_id"
	clusterIDKey = "cluster_id"
	peersKey     = "peers"
)

// metaStore keeps a few facts about the node itself. Calls may run at once.
type metaStore interface {
	// get returns a copy of the fact; ok is false when it was never set.
	get(name string) (value []byte, ok bool, err error)
	// set stores the facts in one synced write: all or none are there after a crash.
	set(facts map[string][]byte) error
}

// identity is who this data folder is.
type identity struct {
	node    ids.NodeID
	cluster string // empty: it belongs to none yet
}

// randomID returns 16 random bytes in hex.
func randomID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// loadIdentity reads the folder's identity and makes it when the folder is new.
func loadIdentity(m metaStore) (identity, error) {
	node, ok, err := m.get(nodeIDKey)
	if err != nil {
		return identity{}, err
	}
	if !ok {
		node = []byte(randomID())
		if err := m.set(map[string][]byte{nodeIDKey: node}); err != nil {
			return identity{}, err
		}
	}
	if len(node) == 0 || len(node) > maxName {
		return identity{}, fault.New(fault.Corrupted, "the data folder's node id has %d bytes", len(node))
	}
	cluster, _, err := m.get(clusterIDKey)
	return identity{node: ids.NodeID(node), cluster: string(cluster)}, err
}

// settle records which cluster the folder belongs to, for good.
func (id *identity) settle(m metaStore, cluster string) error {
	if id.cluster == cluster {
		return nil
	}
	if id.cluster != "" {
		return foreignCluster(id.cluster, cluster)
	}
	if err := m.set(map[string][]byte{clusterIDKey: []byte(cluster)}); err != nil {
		return err
	}
	id.cluster = cluster
	return nil
}

// loadPeers returns where gossip found the others when the node ran last: the state itself isn't known to a starting
// node until it has heard from the leader.
func loadPeers(m metaStore) ([]string, error) {
	b, ok, err := m.get(peersKey)
	if err != nil || !ok {
		return nil, err
	}
	k := &internalv1.KnownPeers{}
	if err := proto.Unmarshal(b, k); err != nil {
		return nil, fault.Wrap(fault.Corrupted, err, "the data folder's list of peers")
	}
	return k.Gossip, nil
}

func savePeers(m metaStore, gossip []string) error {
	b, err := proto.Marshal(&internalv1.KnownPeers{Gossip: gossip})
	if err != nil {
		return fault.Wrap(fault.Internal, err, "list of peers")
	}
	return m.set(map[string][]byte{peersKey: b})
}

// logMeta is the metaStore in a node's log store.
type logMeta struct{ store *storage.Store }

func (m logMeta) get(name string) ([]byte, bool, error) {
	v, closer, err := m.store.Get(storage.MetaKey(name))
	if errors.Is(err, fault.Of(fault.NotFound)) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	out := append([]byte(nil), v...)
	return out, true, closer.Close()
}

func (m logMeta) set(facts map[string][]byte) error {
	b := m.store.NewBatch()
	defer b.Close()
	for name, v := range facts {
		b.Set(storage.MetaKey(name), v)
	}
	return m.store.Commit(b, true)
}
