package partition

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// Everything that this package puts into the log store is encoded here; storage builds the keys. All integers are
// little-endian, and every value begins with the version of its format.
//
//	batch    LogKey(p, stream, base)           header, payload
//	index    ReplicaKey(p, "i" lsn:8 BE)       header, commit:8
//	producer ProducerKey(p, stream, producer)  producerRecord
//	epoch    EpochKey(p, epoch)                the terms of an epoch: { boot:8 first LSN:8 }*
//	state    ReplicaKey(p, "state")            hardState
//	stream   ReplicaKey(p, "s" stream:8 BE)    streamFact
//	boot     MetaKey("partition boot")         how often this node has started: 8
const (
	formatVersion = 1

	headerLen   = 120
	indexLen    = headerLen + 8
	maxTermsLen = 1 + 16<<16

	keyState     = "state"
	keyIndex     = "i"
	keyStream    = "s"
	metaKeyBoot  = "partition boot"
	maxMembers   = 64  // of a partition, in its hard state, and joining
	maxMemberLen = 255 // bytes of a member's id
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// term is one reign of a primary: a new epoch or a new process begins another. Within a term LSNs are given out once, so
// two entries of the same term and LSN are the same batch. The epoch alone wouldn't do: a primary that crashed before
// its fsync gives the same LSNs out again in the same epoch, while a follower may have the lost batches on disk.
type term struct {
	epoch ids.Epoch
	boot  uint64
}

func (t term) less(o term) bool { return t.epoch < o.epoch || t.epoch == o.epoch && t.boot < o.boot }

func (t term) String() string { return fmt.Sprintf("%d.%d", t.epoch, t.boot) }

// header is what is stored before a payload. The primary fills it in, and every replica keeps its bytes as they are.
type header struct {
	partition    ids.PartitionID
	stream       ids.StreamID
	base         ids.Offset
	count        uint32
	tick         ids.Tick
	timeMicros   int64
	term         term
	lsn          LSN
	producer     uint64
	sequence     uint64
	streamBytes  uint64 // payload bytes of the stream's batches before this one, since the beginning
	totalBytes   uint64 // of all streams' batches in the partition before this one
	compression  millracev1.Compression
	uncompressed uint32
	payloadLen   uint32
	payloadCRC   uint32
}

// end is the offset after the batch.
func (h *header) end() ids.Offset { return h.base + ids.Offset(h.count) }

// encode writes the header into dst, which has headerLen bytes.
func (h *header) encode(dst []byte) {
	_ = dst[headerLen-1]
	le := binary.LittleEndian
	dst[0], dst[1], dst[2], dst[3] = formatVersion, byte(h.compression), 0, 0
	le.PutUint32(dst[4:], uint32(h.partition))
	le.PutUint64(dst[8:], uint64(h.stream))
	le.PutUint64(dst[16:], uint64(h.base))
	le.PutUint32(dst[24:], h.count)
	le.PutUint32(dst[28:], h.uncompressed)
	le.PutUint64(dst[32:], uint64(h.tick))
	le.PutUint64(dst[40:], uint64(h.timeMicros))
	le.PutUint64(dst[48:], uint64(h.term.epoch))
	le.PutUint64(dst[56:], h.term.boot)
	le.PutUint64(dst[64:], uint64(h.lsn))
	le.PutUint64(dst[72:], h.producer)
	le.PutUint64(dst[80:], h.sequence)
	le.PutUint64(dst[88:], h.streamBytes)
	le.PutUint64(dst[96:], h.totalBytes)
	le.PutUint32(dst[104:], h.payloadLen)
	le.PutUint32(dst[108:], h.payloadCRC)
	le.PutUint32(dst[112:], 0)
	le.PutUint32(dst[116:], crc32.Checksum(dst[:116], castagnoli))
}

// decode reads a header that encode wrote. Corrupted for anything else.
func (h *header) decode(src []byte) error {
	if len(src) < headerLen {
		return fault.New(fault.Corrupted, "a batch header of %d bytes, not %d", len(src), headerLen)
	}
	le := binary.LittleEndian
	if crc32.Checksum(src[:116], castagnoli) != le.Uint32(src[116:]) {
		return fault.New(fault.Corrupted, "a batch header fails its checksum")
	}
	if src[0] != formatVersion {
		return fault.New(fault.Corrupted, "a batch header of format %d; this version knows %d", src[0], formatVersion)
	}
	*h = header{
		compression:  millracev1.Compression(src[1]),
		partition:    ids.PartitionID(le.Uint32(src[4:])),
		stream:       ids.StreamID(le.Uint64(src[8:])),
		base:         ids.Offset(le.Uint64(src[16:])),
		count:        le.Uint32(src[24:]),
		uncompressed: le.Uint32(src[28:]),
		tick:         ids.Tick(le.Uint64(src[32:])),
		timeMicros:   int64(le.Uint64(src[40:])),
		term:         term{ids.Epoch(le.Uint64(src[48:])), le.Uint64(src[56:])},
		lsn:          LSN(le.Uint64(src[64:])),
		producer:     le.Uint64(src[72:]),
		sequence:     le.Uint64(src[80:]),
		streamBytes:  le.Uint64(src[88:]),
		totalBytes:   le.Uint64(src[96:]),
		payloadLen:   le.Uint32(src[104:]),
		payloadCRC:   le.Uint32(src[108:]),
	}
	if h.lsn == 0 || h.count == 0 || h.end() < h.base {
		return fault.New(fault.Corrupted, "a batch header with LSN %d, offset %d and %d records", h.lsn, h.base, h.count)
	}
	return nil
}

// checkPayload compares a payload with its header.
func (h *header) checkPayload(payload []byte) error {
	if len(payload) != int(h.payloadLen) {
		return fault.New(fault.Corrupted, "batch %d of partition %d has %d bytes, its header says %d", h.lsn, h.partition, len(payload), h.payloadLen)
	}
	if crc32.Checksum(payload, castagnoli) != h.payloadCRC {
		return fault.New(fault.Corrupted, "batch %d of partition %d fails its checksum", h.lsn, h.partition)
	}
	return nil
}

// encodeIndex writes an index entry: the batch's header and the commit LSN known when it was written.
func encodeIndex(dst, head []byte, commit LSN) {
	copy(dst, head[:headerLen])
	binary.LittleEndian.PutUint64(dst[headerLen:], uint64(commit))
}

func decodeIndex(src []byte) (h header, commit LSN, err error) {
	if len(src) != indexLen {
		return h, 0, fault.New(fault.Corrupted, "an index entry of %d bytes, not %d", len(src), indexLen)
	}
	err = h.decode(src)
	return h, LSN(binary.LittleEndian.Uint64(src[headerLen:])), err
}

// rememberedResults is how many results of a producer are kept in each stream and partition, and so how many of its
// batches may be uncommitted there at once: everything that a truncation takes away is among them.
const rememberedResults = 5

// result is what a producer was, or will be, told about a batch.
type result struct {
	lsn   LSN
	base  ids.Offset
	tick  ids.Tick
	count uint32
}

// producerRecord is what a partition remembers of a producer in one stream. results are those of the last n sequence
// numbers up to last, oldest first.
type producerRecord struct {
	last    uint64
	tick    ids.Tick // of the newest batch ever seen
	n       int
	results [rememberedResults]result
}

// push adds the result of sequence number seq.
func (p *producerRecord) push(seq uint64, r result) {
	if seq != p.last+1 {
		p.n = 0 // a copy that begins in the middle
	}
	if p.n == rememberedResults {
		copy(p.results[:], p.results[1:])
		p.n--
	}
	p.results[p.n] = r
	p.n++
	p.last, p.tick = seq, max(p.tick, r.tick)
}

// find returns the result of seq.
func (p *producerRecord) find(seq uint64) (result, bool) {
	back := p.last - seq
	if seq > p.last || back >= uint64(p.n) {
		return result{}, false
	}
	return p.results[p.n-1-int(back)], true
}

// truncate forgets what lies behind end and reports whether anything did.
func (p *producerRecord) truncate(end LSN) bool {
	changed := false
	for p.n > 0 && p.results[p.n-1].lsn > end {
		p.n--
		p.last--
		changed = true
	}
	return changed
}

const resultLen = 28

func (p *producerRecord) append(dst []byte) []byte {
	le := binary.LittleEndian
	dst = append(dst, formatVersion, byte(p.n))
	dst = le.AppendUint64(dst, p.last)
	dst = le.AppendUint64(dst, uint64(p.tick))
	for _, r := range p.results[:p.n] {
		dst = le.AppendUint64(dst, uint64(r.lsn))
		dst = le.AppendUint64(dst, uint64(r.base))
		dst = le.AppendUint64(dst, uint64(r.tick))
		dst = le.AppendUint32(dst, r.count)
	}
	return dst
}

func (p *producerRecord) size() int { return 18 + p.n*resultLen }

func (p *producerRecord) decode(src []byte) error {
	if len(src) < 18 || src[0] != formatVersion || src[1] > rememberedResults || len(src) != 18+int(src[1])*resultLen {
		return fault.New(fault.Corrupted, "a producer's record of %d bytes isn't one", len(src))
	}
	le := binary.LittleEndian
	*p = producerRecord{n: int(src[1]), last: le.Uint64(src[2:]), tick: ids.Tick(le.Uint64(src[10:]))}
	if p.last < uint64(p.n) {
		return fault.New(fault.Corrupted, "a producer's record with %d results up to sequence %d", p.n, p.last)
	}
	src = src[18:]
	for i := range p.results[:p.n] {
		p.results[i] = result{
			LSN(le.Uint64(src)), ids.Offset(le.Uint64(src[8:])), ids.Tick(le.Uint64(src[16:])), le.Uint32(src[24:]),
		}
		src = src[resultLen:]
	}
	return nil
}

// hardState is what a replica must not forget, besides its log.
type hardState struct {
	term      term // the newest that it has heard of: it takes nothing from an older one
	base      LSN  // the log begins behind it; above 0 after a reset
	baseTerm  term
	baseBytes uint64
	first     LSN // of the index: below it retention has removed everything
	commit    LSN // when this was written; entries say it too
	failed    bool
	held      bool      // see held.go
	forced    ids.Epoch // the last operator's choice that this log is known to follow
	// members are those that have been in sync since they hold the partition, of the last configuration seen.
	members []ids.NodeID
	// joining are learners that this node, the primary of term.epoch, has proposed for the in-sync set. The proposal may
	// have been accepted, and one of them made primary, without this node knowing even after a restart: until the next
	// epoch nothing is committed without them.
	joining []ids.NodeID
}

// Flags of a hardState on disk. Versions that know only the first refuse a state that has others.
const (
	stateFailed = 1 << iota
	stateHeld
	stateForced // the epoch follows the members
)

func (s *hardState) append(dst []byte) []byte {
	le := binary.LittleEndian
	flags := byte(0)
	if s.failed {
		flags |= stateFailed
	}
	if s.held {
		flags |= stateHeld
	}
	if s.forced > 0 {
		flags |= stateForced
	}
	dst = append(dst, formatVersion, flags)
	for _, v := range [...]uint64{
		uint64(s.term.epoch), s.term.boot, uint64(s.base), uint64(s.baseTerm.epoch), s.baseTerm.boot, s.baseBytes, uint64(s.first), uint64(s.commit),
	} {
		dst = le.AppendUint64(dst, v)
	}
	for _, list := range [...][]ids.NodeID{s.members, s.joining} {
		dst = append(dst, byte(len(list)))
		for _, m := range list {
			dst = append(append(dst, byte(len(m))), m...)
		}
	}
	if s.forced > 0 {
		dst = le.AppendUint64(dst, uint64(s.forced))
	}
	return dst
}

func (s *hardState) decode(src []byte) error {
	bad := fault.New(fault.Corrupted, "a replica's state of %d bytes isn't one", len(src))
	const fixed = 2 + 8*8
	if len(src) < fixed || src[0] != formatVersion || src[1] > stateFailed|stateHeld|stateForced {
		return bad
	}
	le := binary.LittleEndian
	u := func(i int) uint64 { return le.Uint64(src[2+8*i:]) }
	*s = hardState{
		failed: src[1]&stateFailed != 0, held: src[1]&stateHeld != 0, term: term{ids.Epoch(u(0)), u(1)}, base: LSN(u(2)),
		baseTerm: term{ids.Epoch(u(3)), u(4)}, baseBytes: u(5), first: LSN(u(6)), commit: LSN(u(7)),
	}
	rest := src[fixed:]
	for _, list := range [...]*[]ids.NodeID{&s.members, &s.joining} {
		if len(rest) == 0 {
			return bad
		}
		n := int(rest[0])
		rest = rest[1:]
		for range n {
			if len(rest) == 0 || len(rest) < 1+int(rest[0]) {
				return bad
			}
			*list = append(*list, ids.NodeID(rest[1:1+rest[0]]))
			rest = rest[1+rest[0]:]
		}
	}
	if src[1]&stateForced != 0 {
		if len(rest) < 8 {
			return bad
		}
		s.forced, rest = ids.Epoch(le.Uint64(rest)), rest[8:]
	}
	if len(rest) != 0 {
		return bad
	}
	return nil
}

// streamFact is what is known of a stream's log without its batches: where it starts, and where it ended when
// retention last touched it, since all its batches may be gone.
type streamFact struct {
	start      ids.Offset
	startBytes uint64 // payload bytes before start
	next       ids.Offset
	nextBytes  uint64
	lastTick   ids.Tick
	lastTime   int64
}

const streamFactLen = 1 + 6*8

func (f *streamFact) append(dst []byte) []byte {
	dst = append(dst, formatVersion)
	for _, v := range [...]uint64{
		uint64(f.start), f.startBytes, uint64(f.next), f.nextBytes, uint64(f.lastTick), uint64(f.lastTime),
	} {
		dst = binary.LittleEndian.AppendUint64(dst, v)
	}
	return dst
}

func (f *streamFact) decode(src []byte) error {
	if len(src) != streamFactLen || src[0] != formatVersion {
		return fault.New(fault.Corrupted, "a stream's facts of %d bytes aren't any", len(src))
	}
	u := func(i int) uint64 { return binary.LittleEndian.Uint64(src[1+8*i:]) }
	*f = streamFact{ids.Offset(u(0)), u(1), ids.Offset(u(2)), u(3), ids.Tick(u(4)), int64(u(5))}
	if f.next < f.start || f.nextBytes < f.startBytes {
		return fault.New(fault.Corrupted, "a stream's facts say that it starts at %d and ends at %d", f.start, f.next)
	}
	return nil
}

// termStart is where a term begins in a log.
type termStart struct {
	term  term
	first LSN
}

// appendTerms encodes the terms of one epoch.
func appendTerms(dst []byte, terms []termStart) []byte {
	dst = append(dst, formatVersion)
	for _, t := range terms {
		dst = binary.LittleEndian.AppendUint64(dst, t.term.boot)
		dst = binary.LittleEndian.AppendUint64(dst, uint64(t.first))
	}
	return dst
}

func decodeTerms(epoch ids.Epoch, src []byte) ([]termStart, error) {
	if len(src) < 1 || src[0] != formatVersion || len(src)%16 != 1 || len(src) > maxTermsLen {
		return nil, fault.New(fault.Corrupted, "the terms of epoch %d in %d bytes aren't any", epoch, len(src))
	}
	var out []termStart
	for src = src[1:]; len(src) > 0; src = src[16:] {
		t := termStart{term{epoch, binary.LittleEndian.Uint64(src)}, LSN(binary.LittleEndian.Uint64(src[8:]))}
		if n := len(out); n > 0 && (!out[n-1].term.less(t.term) || out[n-1].first >= t.first) {
			return nil, fault.New(fault.Corrupted, "the terms of epoch %d aren't in order", epoch)
		}
		out = append(out, t)
	}
	return out, nil
}
