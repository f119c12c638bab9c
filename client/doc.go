// Package client is the Go client of a Millrace cluster: it appends records, reads them, runs SQL, follows views, and
// administers the cluster.
//
// A Client is made with the address of any node. It learns the others from the first that answers and goes on with
// them: a node that fails, or is silent for a second, is left for the next. It keeps the highest tick that it has seen
// in an acknowledgement or an answer and sends it along, so that what it appends is never stamped before what it has
// seen, and what it reads is never older.
//
// # Appending
//
// A Producer hides routing, batching, retries and idempotence. Records are gathered per partition and sent to the
// partition's primary; a batch that isn't acknowledged is sent again, with the same sequence number, until it is or the
// producer's timeout passes. Within a producer's life each acknowledged record is in its stream exactly once, and
// records of one key are there in the order of their Send calls.
//
// # Reading
//
// Client.Read and Client.Subscribe are iterators that survive the loss of nodes: a read goes on with the next offset, a
// subscription with the next tick, with nothing twice and nothing missed.
//
// # Errors
//
// Errors carry a kind and a stable reason, see [Reason], and say in one line what was wrong, where, and what to do.
package client
