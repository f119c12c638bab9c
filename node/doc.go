// Package node is the composition root: it opens a data folder, starts the coordinator, the partitions and the view
// runtime, and puts servers in front of them: gRPC for clients and peers, HTTP for operators.
//
// Any node answers any client. What a node doesn't hold it asks of the primaries: appends are forwarded
// (ingest.go, router.go), statements are split in a part per partition and a part here (gateway.go, query.go).
// One RPC service a file. No decision about data is taken here: which records are committed is package partition's
// business, who holds what is package coordinator's.
package node
