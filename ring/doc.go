// Package ring places partitions on nodes and keys on partitions. It is pure: the same members give the same placement
// on every machine and in every version of Millrace (a golden file holds it to that), since moving data is what costs.
// It must never look at a clock, at randomness or at where things are now.
package ring
