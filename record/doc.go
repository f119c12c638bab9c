// Package record is the data model: types, schemas, values, and columnar deltas; and the codecs between them and
// what clients send (JSON, CSV, protobuf) and what is stored (ordered keys, rows).
//
// A Delta is a batch of rows by column in Arrow's memory layout, each row with an integer weight: +1 appears,
// -1 disappears. Nothing here does I/O, keeps state between calls, or starts a goroutine.
package record
