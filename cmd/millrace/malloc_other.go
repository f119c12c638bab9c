//go:build !cgo || !linux

package main

// limitArenas does nothing where Go or another C library allocates.
func limitArenas() {}
