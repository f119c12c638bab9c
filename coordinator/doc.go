// Package coordinator decides who is in the cluster, what exists in it and who holds which partition, and issues its
// ticks.
//
// Gossip (hashicorp/memberlist) finds peers and carries addresses and suspicion; it is advice. Only the Raft log
// (hashicorp/raft, on the node's log store) decides: its entries are internalv1.Command, and a pure applier turns a
// command and a ClusterState into the next ClusterState and a result. Published states never change.
//
// One node leads. It alone issues ticks, below a ceiling that it reserves through Raft, so that no leader ever repeats
// a tick of another; it takes reports from every node over one gRPC stream each, judges who is alive, fails partitions
// over, and moves them in small steps towards what package ring assigns.
//
// The package never touches a record, a log of a stream or a view's state, and never imports package partition: what
// partitions must do follows from the published states and the ticks.
//
// Files: applier*.go the pure state machine; fsm.go, snapshot.go, raft.go its adapters to Raft; oracle.go the pure tick
// oracle and ticker.go what drives it; liveness.go, reconcile.go, voters.go the leader's pure decisions and leader.go,
// duties.go what carries them out; gossip.go, join.go, attach.go, service.go, propose.go the talk between nodes.
package coordinator
