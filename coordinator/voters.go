package coordinator

import (
	"slices"

	"github.com/hashicorp/raft"

	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// serverChange is one change of Raft's configuration.
type serverChange struct {
	kind serverChangeKind
	id   string
}

type serverChangeKind uint8

const (
	addServer serverChangeKind = iota // as a non-voter
	promote
	demote
	removeServer
	transferAway // this node has to stop leading first
)

// votersFor is how many voters a cluster of n usable members has.
func votersFor(n int) int {
	switch {
	case n >= 5:
		return 5
	case n >= 3:
		return 3
	}
	return n
}

// nextServerChange compares Raft's configuration with the members and returns the next change, one at a time as Raft
// wants it. Members that are alive or only briefly silent keep their vote; one that is draining, removed or gone for
// long loses it, as soon as another can take it. caughtUp tells whether a member's log is near the leader's: a voter
// that lags would hold commits up.
func nextServerChange(st *internalv1.ClusterState, servers []raft.Server, self string, o *outlook, caughtUp func(id string) bool) (serverChange, bool) {
	usable := func(id string) bool {
		_, m := findMember(st, id)
		return m != nil && (m.State == alive || m.State == dead) && !o.gone[id]
	}
	present := map[string]raft.ServerSuffrage{}
	for _, s := range servers {
		present[string(s.ID)] = s.Suffrage
	}
	n := 0
	for _, m := range st.Members {
		if _, ok := present[m.Id]; !ok && m.State != removed {
			return serverChange{addServer, m.Id}, true
		}
		if usable(m.Id) {
			n++
		}
	}
	target := votersFor(n)
	var good, bad []string // voters
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			if usable(string(s.ID)) {
				good = append(good, string(s.ID))
			} else {
				bad = append(bad, string(s.ID))
			}
		}
	}
	if len(good) < target {
		for _, m := range st.Members {
			if present[m.Id] != raft.Voter && m.State == alive && !o.down[m.Id] && !o.stopping[m.Id] && caughtUp(m.Id) {
				return serverChange{promote, m.Id}, true
			}
		}
	}
	if ch, ok := shedVoter(st, servers, self, o, good, bad, target); ok {
		return ch, true
	}
	for _, s := range servers {
		if _, m := findMember(st, string(s.ID)); (m == nil || m.State == removed) && s.Suffrage != raft.Voter {
			return serverChange{removeServer, string(s.ID)}, true
		}
	}
	return serverChange{}, false
}

// shedVoter takes the vote of a member that shouldn't have it, or of one too many.
func shedVoter(st *internalv1.ClusterState, servers []raft.Server, self string, o *outlook, good, bad []string, target int) (serverChange, bool) {
	for _, id := range bad {
		_, m := findMember(st, id)
		final := m == nil || m.State == removed
		switch {
		case len(good) == 0: // the last vote stays
		case id == self:
			return serverChange{transferAway, id}, true
		case final:
			return serverChange{removeServer, id}, true
		case m.State == draining || m.State == drained || len(good) >= target:
			return serverChange{demote, id}, true
		}
	}
	if len(good) > target {
		// The youngest in the configuration that isn't the leader; one that is down first.
		slices.Reverse(good)
		for _, wantDown := range []bool{true, false} {
			for _, id := range good {
				if id != self && o.down[id] == wantDown {
					return serverChange{demote, id}, true
				}
			}
		}
	}
	return serverChange{}, false
}
