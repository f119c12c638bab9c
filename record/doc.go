// Package record is the data model: types, schemas, values, and columnar deltas; and the codecs between them and
// what clients send (JSON, CSV, protobuf) and what is stored (ordered keys, rows).
//
// A Delta is a batch of rows by column in Arrow's memory layout, each row with an integer weight: +1 appears,
// -1 disappears. Nothing here does I/O or starts a goroutine, and only a Decoder keeps state between calls (the highest event
// time), which its user may read and set.
//
// A value has four encodings, and they promise different things:
//
//	AppendText, AppendJSON  what people read; AppendText is PostgreSQL's output, and ParseText reads it back exactly
//	AppendRow               compact and exact: for values in the state store
//	AppendOrdered           sorts as the values do, and equal values are equal bytes: for keys
//	MarshalDelta            whole deltas, column by column: between peers and in the state store
//
// Whatever comes from a client or the disk is checked on its way in: bad bytes are an error, never a panic, and never make
// a decoder allocate more than a small multiple of their size.
package record
