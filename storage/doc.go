// Package storage keeps ordered bytes on disk: Pebble as the two stores of a node, the log store (write-ahead log on,
// large values kept apart in blob files) and the state store (write-ahead log off: after a crash it is a consistent
// prefix of its batches). It knows keys, values, batches, snapshots and ranges; it must never know rows or records.
//
// An error on the way to the disk (no space, failed write or fsync, corruption) makes a store refuse all later writes
// with that error, which Healthy reports too; reads go on. What was committed with sync before is on the disk and is
// found again when the store is opened anew. DESIGN.md says how, and why Pebble's own way out (ending the process) isn't
// taken.
package storage
