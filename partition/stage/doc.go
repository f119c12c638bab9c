// Package stage runs the materialized views of one node: for every partition whose primary the node is, it executes
// the views' stages over the logs' ticks, keeps their state, moves rows between partitions, and serves what the views
// hold at an exact tick, and how it changes.
//
// The contract: the sum of a view's output deltas up to tick k is its query over all input records with a tick <= k.
// Everything here is a pure function of the logs: a partition that lost its state, or the newest part of it, computes
// it again, identically.
//
// # The life of a row
//
// A source (one per scan or exchange of a view, and local primary partition) reads the log of its partition up to the
// closed tick, or what another stage has put out there, once for all its readers, runs the stage's operators without
// state, and splits what comes out by the partition that it goes to.
// The pieces travel as steps, one tick (or part of a tick) each, through feeds to groups: a stage's target partitions
// of one node. Feeds to other nodes share one gRPC stream per pair of nodes. A group knows from its feeds, and from the
// ticks that the sources' partitions have closed, up to which tick it has everything, and lets its targets run. A
// target (one per stage with state and local primary partition) runs its stage over its state and keeps output deltas and,
// if it is the last, the view's rows. DESIGN.md says how stages read each other.
//
// # History
//
// A view begins at its created_tick C: all input up to C is one step, read in bounded chunks, applied as it comes and
// visible only once it is complete. Later ticks are never mixed in one delta. With start='now' the records up to C
// count for nothing but the watermark: a record is late or not because of the records before it in its log, whichever
// view looks at it.
//
// # Positions
//
// How far a source's log was read is an offset with the highest event time below it. Targets keep the positions of all
// sources with their state, in the same write, and hand them to the sources when they attach; so a source remembers
// nothing, and any node can become one at once. A reader that falls behind detaches from the shared scan of the source
// and gets a scan of its own from its position; scans that meet become one.
//
// # What it must never do
//
// Block appends, ticks or other views because of a slow reader; depend on a wall clock in what it computes; make a
// change visible that isn't a whole tick.
package stage
