// Package test holds what checks the whole: the layers, the generated code, and black-box tests of the built binary
// with real processes, real clients and faults. Nothing imports it.
package test
