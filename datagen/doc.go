// Package datagen makes events of which the n-th is a function of n: a load that can be split, replayed and recomputed
// anywhere. Its one kind so far is Nexmark, the benchmark of auctions and bids, as one generator for every system that is
// measured defines it: all arithmetic in integers, random numbers drawn by event and field, so that a column that isn't
// asked for costs nothing.
//
// The package is pure: no clock, no state, no randomness but the event's number. What an event holds never changes, as
// views over it are recomputed after a crash; a change would be a new kind.
package datagen
