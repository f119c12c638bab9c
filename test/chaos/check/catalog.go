package check

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// Catalog is a history of CREATE and DROP of some names by several clients, to be checked for linearizability. It may be
// used by several goroutines at once.
type Catalog struct {
	f     *Findings
	start time.Time
	mu    sync.Mutex
	ops   []porcupine.Operation
}

// CatalogOp is one statement.
type CatalogOp struct {
	Name   string
	Create bool // else drop
}

// Outcome is how a statement ended.
type Outcome int

const (
	Done    Outcome = iota // it took effect
	Refused                // it had none: what it makes exists already, or what it changes doesn't exist
	Unknown                // its outcome isn't known: it may take effect at any time, or never
)

// NewCatalog returns an empty history.
func NewCatalog(f *Findings) *Catalog { return &Catalog{f: f, start: time.Now()} }

// Now is the time on the history's clock.
func (c *Catalog) Now() time.Duration { return time.Since(c.start) }

// Op adds an operation with its time of call and of return.
func (c *Catalog) Op(client int, op CatalogOp, out Outcome, called, returned time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := porcupine.Operation{ClientId: client, Input: op, Output: out, Call: int64(called), Return: int64(returned)}
	if out == Unknown {
		x.Return = math.MaxInt64
		x.ClientId = 1<<20 + len(c.ops) // it doesn't end, and its client goes on
	}
	c.ops = append(c.ops, x)
}

// Count returns how many operations there are.
func (c *Catalog) Count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ops)
}

// model of one name: it exists or not.
var catalogModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byName := map[string][]porcupine.Operation{}
		for _, op := range history {
			n := op.Input.(CatalogOp).Name
			byName[n] = append(byName[n], op)
		}
		var out [][]porcupine.Operation
		for _, h := range byName {
			out = append(out, h)
		}
		return out
	},
	Init: func() any { return false },
	Step: func(state, input, output any) (bool, any) {
		exists, op := state.(bool), input.(CatalogOp)
		can := exists != op.Create
		switch output.(Outcome) {
		case Done:
			return can, op.Create
		case Refused:
			return !can, exists
		}
		return true, op.Create // where it had no effect, it counts as one that comes after all others
	},
	DescribeOperation: func(input, output any) string {
		op := input.(CatalogOp)
		verb := "drop"
		if op.Create {
			verb = "create"
		}
		return fmt.Sprintf("%s %s: %s", verb, op.Name, [...]string{"done", "refused", "unknown"}[output.(Outcome)])
	},
}

// Judge looks for an order of the operations that explains all their outcomes.
func (c *Catalog) Judge(timeout time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, history := range catalogModel.Partition(c.ops) {
		res, _ := porcupine.CheckOperationsVerbose(catalogModel, history, timeout)
		if res == porcupine.Illegal {
			c.f.Add("catalog", "no order explains these operations:\n%s", describe(history))
		}
	}
}

func describe(history []porcupine.Operation) (out string) {
	for _, op := range history {
		until := "never"
		if op.Return != math.MaxInt64 {
			until = time.Duration(op.Return).Round(time.Millisecond).String()
		}
		out += fmt.Sprintf("  client %d, %v to %s: %s\n", op.ClientId, time.Duration(op.Call).Round(time.Millisecond), until,
			catalogModel.DescribeOperation(op.Input, op.Output))
	}
	return out
}
