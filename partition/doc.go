// Package partition keeps the replicas of one node: for each partition a log of batches, replicated from its primary to
// the others before anything is acknowledged, and cut into ticks.
//
// The promise: a batch for which Append reported success is on the disk of every in-sync replica of its epoch, has
// its offset for good, is returned by every later read, and is there exactly once however often its producer sent it.
// What a closed tick holds never changes.
//
// The decisions are made by a state machine per replica (replica) that does no I/O, has no clock and no goroutine:
// events go in, effects come out. Host drives all of them with one log writer (a group commit for all partitions),
// one gRPC stream to each peer, and a clock; an idle partition costs nothing but its share of a loop over the ticks.
// DESIGN.md has the protocol, its invariants and the layout on disk.
//
// It must never acknowledge before every in-sync replica has the batch on disk, cut off what is committed, show what
// isn't, or look into a payload.
package partition
