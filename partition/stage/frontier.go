package stage

import "github.com/millrace/millrace/internal/ids"

// frontier tells up to which tick a group has everything from all its sources. It is a plain state machine.
type frontier struct {
	sources []sourceFrontier
	done    ids.Tick // least complete tick of the sources; never goes back
}

type sourceFrontier struct {
	received ids.Tick // everything stamped up to here has come
	closed   ids.Tick // the source's partition has closed this tick
	lastData ids.Tick // and has no records of the stream after this one, up to closed
}

func newFrontier(sources int) frontier { return frontier{sources: make([]sourceFrontier, sources)} }

// complete is the tick up to which everything from a source is here: where the source had nothing new to send, as far
// as its partition has closed.
func (s *sourceFrontier) complete() ids.Tick {
	if s.received >= s.lastData && s.closed > s.received {
		return s.closed
	}
	return s.received
}

// receive notes that everything from a source up to tick has come.
func (f *frontier) receive(source int, through ids.Tick) {
	s := &f.sources[source]
	s.received = max(s.received, through)
}

// close notes that a source's partition has closed a tick, and which tick was the last one with data.
func (f *frontier) close(source int, closed, lastData ids.Tick) {
	s := &f.sources[source]
	if closed >= s.closed {
		s.closed, s.lastData = closed, lastData
	}
}

// advance computes done anew.
func (f *frontier) advance() ids.Tick {
	var least ids.Tick
	for i := range f.sources {
		if c := f.sources[i].complete(); i == 0 || c < least {
			least = c
		}
	}
	f.done = max(f.done, least)
	return f.done
}
