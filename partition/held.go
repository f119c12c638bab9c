package partition

import (
	"slices"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// A held replica is one whose committed batches the primary's log lacks, without an operator having given them up: that
// primary's disk has forgotten what it had acknowledged, and nobody else was in sync any more to say so. The replica may
// be the last that has them. It stops, keeps them, also when the partition is moved off its node, and waits for an
// operator's choice: either copy may be forced, and the configuration of that choice lets the other begin anew.

// givenUp tells whether an operator's choice, made since this log last agreed with a primary's, gave up what it has.
func (r *replica) givenUp() bool { return ids.Epoch(r.cfg.ForcedEpoch) > r.hard.forced }

// ahead decides what to do about a primary whose log lacks what is committed here, beginning behind end. If this node is
// in sync, that primary's disk has lost what it had acknowledged: it mustn't lead, and is told so. If this node is a
// learner and an operator has given up what it has, it begins anew; otherwise it is held. False: the message isn't taken.
func (r *replica) ahead(t term, end LSN) bool {
	if t.epoch != ids.Epoch(r.cfg.Epoch) {
		return false // the configuration that tells is on its way
	}
	if slices.Contains(r.cfg.InSync, string(r.self)) {
		m := r.reply(internalv1.LogReplyKind_LOG_REPLY_KIND_LOST)
		m.Term, m.Hint = t.proto(), uint64(r.commit) // the primary's own term, or it wouldn't listen
		r.fx.replies = append(r.fx.replies, m)
		return false
	}
	if r.givenUp() {
		r.wipe(0, term{}, 0)
		return true
	}
	r.hold(r.heldBecause(end))
	return false
}

func (r *replica) heldBecause(end LSN) error {
	return fault.New(fault.Conflict, "partition %d: the log of primary %s agrees with this one up to batch %d at most, "+
		"and here batches up to %d are acknowledged: its disk has forgotten them. This copy is kept, and follows it no more",
		r.id, r.cfg.Primary, end, r.commit)
}

// hold stops the replica and keeps what it has.
func (r *replica) hold(err error) {
	if r.role == RoleFailed {
		return
	}
	r.stepDown(fault.Wrap(fault.Unavailable, err, "partition %d: this copy isn't followed; retry", r.id))
	r.role, r.cause = RoleFailed, err
	r.hard.held = true
	r.write(r.stateMut())
	if r.leader != "" {
		r.fx.replies = append(r.fx.replies, r.reply(internalv1.LogReplyKind_LOG_REPLY_KIND_FAILED))
	}
}

// unhold lets a held replica go on when an operator has chosen: with what it has if it is the choice, else anew.
func (r *replica) unhold(cfg *internalv1.PartitionConfig) bool {
	chosen := ids.Epoch(cfg.ForcedEpoch) > r.hard.forced
	mine := cfg.Primary == string(r.self) && cfg.ForcedEpoch == cfg.Epoch
	if !chosen || slices.Contains(cfg.InSync, string(r.self)) && !mine {
		r.cfg = cfg
		return false
	}
	if !mine {
		r.wipe(0, term{}, 0)
	}
	r.hard.held, r.cause, r.role, r.cfg = false, nil, RoleNone, &internalv1.PartitionConfig{Id: uint32(r.id)}
	r.write(r.stateMut())
	return true
}

// spare is what is done about a reset that would throw away what is committed here. If the logs agree where it begins, there
// is nothing to begin anew for: the primary didn't know of all that is here, and goes on from there. Else this copy is held.
func (r *replica) spare(base LSN, t term, m *internalv1.LogReset) {
	if known := max(r.hist.base, r.hard.first-1); base >= known && r.hist.at(base) != t {
		r.hold(r.heldBecause(base))
		return
	}
	if m.Last {
		r.agreed, r.probe, r.fx.ack = max(r.agreed, base), max(r.probe, m.Probe), true
	}
}

// agrees notes that the log is that of a primary since the last operator's choice, once all that is committed here has
// been compared: from then on that choice gives nothing up here any more.
func (r *replica) agrees() {
	if forced := ids.Epoch(r.cfg.ForcedEpoch); r.agreed >= r.commit && forced > r.hard.forced && forced <= r.hard.term.epoch {
		r.hard.forced = forced
		r.write(r.stateMut())
	}
}
