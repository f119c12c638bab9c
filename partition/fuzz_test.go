package partition

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/record"
)

func sampleHeader() header {
	return header{
		partition: 3, stream: 9, base: 100, count: 7, tick: 1_700_000_000_000_000, timeMicros: 1_700_000_000_000_001, term: term{4, 2},
		lsn: 55, producer: 77, sequence: 12, streamBytes: 4096, totalBytes: 9000, compression: 1, uncompressed: 900, payloadLen: 5, payloadCRC: 1,
	}
}

// FuzzHeader: what decodes encodes to the same bytes, and nothing else makes it panic.
func FuzzHeader(f *testing.F) {
	h := sampleHeader()
	buf := make([]byte, headerLen)
	h.encode(buf)
	f.Add(buf)
	f.Fuzz(func(t *testing.T, data []byte) {
		var h header
		if h.decode(data) != nil {
			return
		}
		out := make([]byte, headerLen)
		h.encode(out)
		var again header
		if err := again.decode(out); err != nil || again != h {
			t.Fatalf("%+v, then %+v, %v", h, again, err)
		}
	})
}

// FuzzStored: the other values on disk.
func FuzzStored(f *testing.F) {
	rec := producerRecord{}
	rec.push(1, result{5, 6, 7, 8})
	f.Add(rec.append(nil))
	state := hardState{term: term{3, 1}, base: 4, first: 5, members: []ids.NodeID{"a", "b"}, joining: []ids.NodeID{"c"}}
	f.Add(state.append(nil))
	state.held, state.forced = true, 7
	f.Add(state.append(nil))
	fact := streamFact{1, 2, 3, 4, 5, 6}
	f.Add(fact.append(nil))
	f.Add(appendTerms(nil, []termStart{{term{3, 1}, 4}, {term{3, 2}, 9}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		var rec producerRecord
		if rec.decode(data) == nil && !bytes.Equal(rec.append(nil), data) {
			t.Fatalf("producer %+v", rec)
		}
		var state hardState
		if state.decode(data) == nil && !bytes.Equal(state.append(nil), data) {
			t.Fatalf("state %+v", state)
		}
		var fact streamFact
		if fact.decode(data) == nil && !bytes.Equal(fact.append(nil), data) {
			t.Fatalf("fact %+v", fact)
		}
		if terms, err := decodeTerms(3, data); err == nil && !bytes.Equal(appendTerms(nil, terms), data) {
			t.Fatalf("terms %v", terms)
		}
	})
}

// FuzzPeer gives a follower and a primary whatever a peer may send.
func FuzzPeer(f *testing.F) {
	h := sampleHeader()
	h.partition, h.lsn, h.term, h.base = 0, 1, term{1, 1}, 0
	payload := []byte("hello")
	h.payloadCRC = record.Checksum(payload)
	head := make([]byte, headerLen)
	h.encode(head)
	req := &internalv1.ReplicateRequest{
		Appends: []*internalv1.LogAppend{{
			Term: &internalv1.LogTerm{Epoch: 1, Boot: 1}, TermStart: 1, PrevTerm: &internalv1.LogTerm{}, Probe: 3,
			Entries: []*internalv1.LogEntry{{Header: head, Payload: payload}},
		}},
		Resets: []*internalv1.LogReset{{Term: &internalv1.LogTerm{Epoch: 2, Boot: 1}, Probe: 4, Last: true, Base: 10, BaseTerm: &internalv1.LogTerm{Epoch: 1}}},
	}
	data, err := proto.Marshal(req)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data, []byte(nil))
	resp, _ := proto.Marshal(&internalv1.ReplicateResponse{Replies: []*internalv1.LogReply{
		{Kind: internalv1.LogReplyKind_LOG_REPLY_KIND_ACK, Term: &internalv1.LogTerm{Epoch: 1, Boot: 1}, Probe: 1},
		{Kind: internalv1.LogReplyKind_LOG_REPLY_KIND_REJECT, Term: &internalv1.LogTerm{Epoch: 1, Boot: 1}, Probe: 1, Hint: 1 << 60},
		{Kind: internalv1.LogReplyKind_LOG_REPLY_KIND_STALE, Term: &internalv1.LogTerm{Epoch: 9}},
	}})
	f.Add([]byte(nil), resp)
	f.Fuzz(func(t *testing.T, request, response []byte) {
		load := func(producerKey) (producerRecord, bool, error) { return producerRecord{}, false, nil }
		opt := &options{holdWait: time.Second, ackTimeout: time.Second, commitTimeout: time.Second, copyWindow: 100}
		cfg := &internalv1.PartitionConfig{Epoch: 1, Primary: "a", Replicas: []string{"a", "b", "c"}, InSync: []string{"a", "b"}}
		settle := func(r *replica) {
			r.written(0, r.op)
			r.fx = effects{}
		}
		var req internalv1.ReplicateRequest
		if proto.Unmarshal(request, &req) == nil {
			for _, self := range []ids.NodeID{"b", "c"} {
				r := newReplica(0, self, 1, opt, load, 16)
				r.configure(0, cfg)
				settle(r)
				for _, a := range req.Appends {
					if m, err := decodeAppend(a); err == nil {
						r.receive(0, "a", m)
						settle(r)
						r.takeAck()
					}
				}
				for _, m := range req.Resets {
					r.receiveReset(0, "a", m)
					settle(r)
				}
			}
		}
		var resp internalv1.ReplicateResponse
		if proto.Unmarshal(response, &resp) == nil {
			r := newReplica(0, "a", 1, opt, load, 16)
			r.configure(0, cfg)
			r.connected("b")
			r.connected("c")
			for _, m := range resp.Replies {
				settle(r)
				for _, p := range r.primary.peers {
					r.messageFor(p, 0, 1000)
					if job, ok := r.copyNext(p); ok && !job.reset {
						r.copied(p, job, nil, 0, 0)
					}
				}
				r.receiveReply(0, "b", m)
				r.receiveReply(0, "c", m)
				r.elapse(time.Second)
			}
			if r.commit != 0 {
				t.Fatal("something is committed in an empty log")
			}
		}
	})
}
