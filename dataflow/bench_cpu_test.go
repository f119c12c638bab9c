//go:build unix

package dataflow

import "syscall"

// cpuSeconds is the processor time that this process has used: on a machine with other work, rows a second of it say
// more than rows a second.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(u.Utime) + seconds(u.Stime)
}
