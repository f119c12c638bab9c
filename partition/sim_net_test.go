package partition

import (
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

type simMessage struct {
	from, to ids.NodeID
	boot     uint64 // of the receiver, when it was sent: a process doesn't get what was meant for another
	append   *internalv1.LogAppend
	reset    *internalv1.LogReset
	reply    *internalv1.LogReply
}

// deliver gives the i-th message under way to its receiver; again: it stays under way too.
func (s *sim) deliver(i int, again bool) {
	if i >= len(s.net) {
		return
	}
	if s.chance(80) { // mostly in order
		for j := range i {
			if s.net[j].from == s.net[i].from && s.net[j].to == s.net[i].to {
				i = j
				break
			}
		}
	}
	m := s.net[i]
	if !again {
		s.net = slices.Delete(s.net, i, i+1)
	}
	s.hand(m)
}

// hand gives a message to its receiver.
func (s *sim) hand(m simMessage) {
	to := s.node(m.to)
	if !to.up || to.boot != m.boot {
		return
	}
	s.trace("%s gets %v", m.to, m)
	if to.r == nil {
		if m.append != nil {
			s.sendTo(to, m.from, simMessage{reply: &internalv1.LogReply{Kind: internalv1.LogReplyKind_LOG_REPLY_KIND_MISSING, Term: m.append.Term}})
		}
		return
	}
	switch {
	case m.append != nil:
		d, err := decodeAppend(m.append)
		if err != nil {
			s.fatalf("%v", err)
		}
		to.from = m.from
		to.r.receive(s.now, m.from, d)
	case m.reset != nil:
		to.from = m.from
		to.r.receiveReset(s.now, m.from, m.reset)
	default:
		to.r.receiveReply(s.now, m.from, m.reply)
	}
	to.drain()
}

func (m simMessage) String() string {
	switch {
	case m.append != nil:
		a := m.append
		return fmt.Sprintf("%s>%s append in %v from %d: prev %d/%v, %d entries, commit %d, probe %d", m.from, m.to, termOf(a.Term), a.TermStart, a.Prev, termOf(a.PrevTerm), len(a.Entries), a.Commit, a.Probe)
	case m.reset != nil:
		return fmt.Sprintf("%s>%s reset in %v: base %d, streams %v", m.from, m.to, termOf(m.reset.Term), m.reset.Base, m.reset.Streams)
	}
	r := m.reply
	kind := strings.ToLower(strings.TrimPrefix(r.Kind.String(), "LOG_REPLY_KIND_"))
	out := fmt.Sprintf("%s>%s %s in %v: agreed %d, durable %d, probe %d", m.from, m.to, kind, termOf(r.Term), r.Agreed, r.Durable, r.Probe)
	if r.HintTerm != nil {
		out += fmt.Sprintf(", has %d/%v", r.Hint, termOf(r.HintTerm))
	}
	return out
}

// sendTo puts a message under way, unless it gets lost.
func (s *sim) sendTo(from *simNode, to ids.NodeID, m simMessage) {
	if to == "" {
		return // nobody has written yet, so nobody listens
	}
	m.from, m.to, m.boot = from.id, to, s.node(to).boot
	if !s.healing && s.chance(3) {
		from.links[to] = false // the stream that lost it is dead; link notices sooner or later
		return
	}
	s.net = append(s.net, m)
}
