package client

import (
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// appendCodec is protobuf, with a fast path for a batch: an AppendRequest whose payload is handed to the transport as
// it is instead of being copied into a message.
type appendCodec struct{ encoding.CodecV2 }

func newAppendCodec() appendCodec { return appendCodec{encoding.GetCodecV2(grpcproto.Name)} }

// Name is protobuf's: what goes over the wire is no different.
func (appendCodec) Name() string { return grpcproto.Name }

// Marshal implements encoding.CodecV2.
func (c appendCodec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(*appendMessage)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	return mem.BufferSlice{mem.SliceBuffer(m.header()), mem.SliceBuffer(m.batch.payload)}, nil
}

// appendMessage is a millrace.v1.AppendRequest with a batch.
type appendMessage struct {
	requestID uint64
	stream    string
	seenTick  uint64
	partition uint32
	seq       uint64
	producer  uint64
	batch     *batch
}

// Field numbers of millrace.v1.AppendRequest and Batch.
const (
	fieldRequestID = 1
	fieldStream    = 2
	fieldSeenTick  = 3
	fieldBatch     = 5

	fieldBatchPartition   = 1
	fieldBatchProducer    = 2
	fieldBatchSequence    = 3
	fieldBatchCount       = 4
	fieldBatchCompression = 5
	fieldBatchRawBytes    = 6
	fieldBatchCRC         = 7
	fieldBatchPayload     = 8
)

// header encodes the message up to the bytes of its payload, which comes last.
func (m *appendMessage) header() []byte {
	var buf [96]byte
	b := appendVarint(buf[:0], fieldBatchPartition, uint64(m.partition))
	b = appendVarint(b, fieldBatchProducer, m.producer)
	b = appendVarint(b, fieldBatchSequence, m.seq)
	b = appendVarint(b, fieldBatchCount, uint64(m.batch.count))
	b = appendVarint(b, fieldBatchCompression, uint64(m.batch.compression))
	b = appendVarint(b, fieldBatchRawBytes, uint64(m.batch.rawBytes))
	b = protowire.AppendTag(b, fieldBatchCRC, protowire.Fixed32Type)
	b = protowire.AppendFixed32(b, m.batch.crc)
	b = protowire.AppendTag(b, fieldBatchPayload, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(m.batch.payload)))

	out := make([]byte, 0, len(b)+len(m.stream)+48)
	out = appendVarint(out, fieldRequestID, m.requestID)
	out = protowire.AppendTag(out, fieldStream, protowire.BytesType)
	out = protowire.AppendString(out, m.stream)
	out = appendVarint(out, fieldSeenTick, m.seenTick)
	out = protowire.AppendTag(out, fieldBatch, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(len(b)+len(m.batch.payload)))
	return append(out, b...)
}

func appendVarint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = protowire.AppendTag(b, field, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}
