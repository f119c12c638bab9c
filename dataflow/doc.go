// Package dataflow runs the stages of a plan over deltas: operators over Z-sets by column, expressions, windows and
// aggregates.
//
// A Fragment is one stage in one partition. Its caller pushes the rows of a tick into the leaves and ends the tick;
// out comes the stage's net change of that tick. The sum of what came out of all ticks up to k is the stage's result
// over the sum of what went in up to k: whatever the order of the rows within a tick, however history was cut into
// ticks, and whether or not the fragment was made anew over the same State in between. Nothing here does I/O, reads
// a clock, starts a goroutine, or depends on a map's order.
//
// Rows are handled by column, in slices of at most chunkRows rows, so that what an expression keeps for itself stays
// in the processor's cache and doesn't grow with the tick. Columns that an operator only passes on are not copied.
// What must see the whole tick (aggregates, rows that have to be consolidated) is kept in hash tables that are used
// again in the next tick and give their memory back after an unusually large one.
//
// Values that SQL calls equal may look different: 1.0 and 1.00, 0 and -0, 1 day and 24 hours. As a group's key they
// are one, and stand in one form: NUMERIC and numbers in JSONB without trailing zeros, no negative zero, intervals
// with as many whole months of 30 days and whole days of 24 hours as fit. Which of them came first would be an
// accident. Min and max choose by value, then by the form itself.
package dataflow
