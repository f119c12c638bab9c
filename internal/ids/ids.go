// Package ids names the identities that every layer passes around, so that an offset is never taken for a tick.
package ids

// PartitionID is a partition's number, 0 <= id < the cluster's partition count.
type PartitionID uint32

// StreamID is the catalog id of a stream, table or view; ids are never reused.
type StreamID uint64

// Epoch counts a partition's configurations. A message of a lower epoch than its receiver knows is refused.
type Epoch uint64

// Offset is the position of a record in one stream's log in one partition; the first is 0.
type Offset uint64

// Tick is the cluster's clock: microseconds since the Unix epoch, strictly increasing as issued. 0 is "none".
type Tick uint64

// NodeID is a node's identity: random, made with its data folder and never reused. Its name is only a label.
type NodeID string
