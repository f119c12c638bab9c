package stage

import (
	"context"
	"sync"
	"sync/atomic"
)

// task is something that a worker runs in bounded pieces. A task is never run by two workers at once.
type task interface {
	// run does one piece of work and tells whether there is more.
	run() (more bool)
	// background tells whether the next piece may wait for those that aren't: history before live ticks. It takes no lock.
	background() bool
	state() *taskState
}

// taskState is a task's place in the scheduler.
type taskState struct{ s atomic.Int32 }

func (t *taskState) state() *taskState { return t }

const (
	taskIdle    int32 = iota
	taskQueued        // in a queue
	taskRunning       // a worker has it
	taskAgain         // a worker has it, and it was woken since
)

// scheduler hands tasks to workers: live ones first, but every fourth piece to the background if any waits there; in
// turn within each class. A task is in a queue once at most, so the queues are bounded by the number of tasks.
type scheduler struct {
	mu     sync.Mutex
	cond   *sync.Cond
	live   []task
	bulk   []task
	turn   int
	closed bool
}

func newScheduler() *scheduler {
	s := &scheduler{}
	s.cond = sync.NewCond(&s.mu)
	return s
}

// wake makes sure that t runs once more after this call.
func (s *scheduler) wake(t task) {
	st := t.state()
	for {
		switch old := st.s.Load(); old {
		case taskIdle:
			if st.s.CompareAndSwap(old, taskQueued) {
				s.push(t)
				return
			}
		case taskRunning:
			if st.s.CompareAndSwap(old, taskAgain) {
				return
			}
		default:
			return
		}
	}
}

func (s *scheduler) push(t task) {
	bulk := t.background()
	s.mu.Lock()
	if bulk {
		s.bulk = append(s.bulk, t)
	} else {
		s.live = append(s.live, t)
	}
	s.mu.Unlock()
	s.cond.Signal()
}

// next waits for a task; nil when the scheduler is closed.
func (s *scheduler) next() task {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.live) == 0 && len(s.bulk) == 0 && !s.closed {
		s.cond.Wait()
	}
	if s.closed {
		return nil
	}
	s.turn++
	q := &s.live
	if len(*q) == 0 || s.turn%4 == 0 && len(s.bulk) > 0 {
		q = &s.bulk
	}
	t := (*q)[0]
	(*q)[0] = nil
	if *q = (*q)[1:]; len(*q) == 0 {
		*q = nil // lets go of the memory behind it
	}
	return t
}

// work runs tasks until the scheduler is closed.
func (s *scheduler) work() {
	for {
		t := s.next()
		if t == nil {
			return
		}
		st := t.state()
		st.s.Store(taskRunning)
		more := t.run()
		if !more && st.s.CompareAndSwap(taskRunning, taskIdle) {
			continue
		}
		st.s.Store(taskQueued)
		s.push(t)
	}
}

// run runs workers until ctx ends.
func (s *scheduler) run(ctx context.Context, workers int) {
	var wg sync.WaitGroup
	for range workers {
		wg.Go(s.work)
	}
	<-ctx.Done()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cond.Broadcast()
	wg.Wait()
}
