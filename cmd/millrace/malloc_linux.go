//go:build cgo && linux

package main

/*
#include <malloc.h>

static void limitArenas(void) {
#ifdef __GLIBC__
	mallopt(M_MMAP_THRESHOLD, 128 << 10);
	mallopt(M_TRIM_THRESHOLD, 1 << 20);
	mallopt(M_ARENA_MAX, 4);
#endif
}
*/
import "C"

// limitArenas has the C library give memory back. Pebble's tables and cached blocks are allocated by it; left to itself it
// raises the size from which on an allocation is its own mapping to that of the largest one it has seen, and keeps a pool
// for each thread, so that what is freed stays with the process: up to a quarter of a small --memory.
func limitArenas() { C.limitArenas() }
