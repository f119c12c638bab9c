package coordinator

import (
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-sockaddr"
	"github.com/hashicorp/memberlist"

	"github.com/millrace/millrace/internal/fault"
)

// GossipSockets is the port that gossip uses, TCP and UDP, taken before the coordinator runs so that a port in use is
// told at once and a free one has its number.
type GossipSockets struct {
	tcp *net.TCPListener
	udp *net.UDPConn
}

const (
	portTries = 10      // a free port is free on TCP; its UDP side may not be
	udpBuffer = 1 << 20 // of the kernel, bytes
	maxPacket = 65536
)

// ListenGossip takes HOST:PORT; port 0 takes a free one. Unavailable: it can't be had.
func ListenGossip(addr string) (*GossipSockets, error) {
	_, port, err := splitAddress(addr)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		s, err := listenGossip(addr)
		if err == nil {
			return s, nil
		}
		if port != 0 || try == portTries {
			return nil, fault.Wrap(fault.Unavailable, err, "listening for gossip at %s", addr)
		}
	}
}

func listenGossip(addr string) (*GossipSockets, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	tcp := ln.(*net.TCPListener)
	at := tcp.Addr().(*net.TCPAddr)
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: at.IP, Port: at.Port, Zone: at.Zone})
	if err != nil {
		_ = tcp.Close()
		return nil, err
	}
	_ = udp.SetReadBuffer(udpBuffer) // a smaller one loses packets under load, which gossip bears
	return &GossipSockets{tcp, udp}, nil
}

// Addr is HOST:PORT as bound.
func (s *GossipSockets) Addr() string { return s.tcp.Addr().String() }

// Close gives the port back. It may be called twice, and after Run, which does it too.
func (s *GossipSockets) Close() {
	_ = s.tcp.Close()
	_ = s.udp.Close()
}

// gossipTransport is memberlist's way to the network through the sockets.
type gossipTransport struct {
	s       *GossipSockets
	packets chan *memberlist.Packet
	streams chan net.Conn
	done    chan struct{}
	once    sync.Once
	wg      sync.WaitGroup
}

func newGossipTransport(s *GossipSockets) *gossipTransport {
	t := &gossipTransport{s: s, packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), done: make(chan struct{})}
	t.wg.Go(t.readPackets)
	t.wg.Go(t.acceptStreams)
	return t
}

// socketPause is the wait after an error of a socket that may pass, such as too many open files.
const socketPause = 10 * time.Millisecond

// pause tells whether to go on after err.
func (t *gossipTransport) pause() bool {
	select {
	case <-t.done:
		return false
	case <-time.After(socketPause):
		return true
	}
}

func (t *gossipTransport) readPackets() {
	buf := make([]byte, maxPacket)
	for {
		n, from, err := t.s.udp.ReadFrom(buf)
		if err != nil {
			if t.pause() {
				continue
			}
			return
		}
		select {
		case t.packets <- &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: from, Timestamp: time.Now()}:
		case <-t.done:
			return
		}
	}
}

func (t *gossipTransport) acceptStreams() {
	for {
		conn, err := t.s.tcp.AcceptTCP()
		if err != nil {
			if t.pause() {
				continue
			}
			return
		}
		select {
		case t.streams <- conn:
		case <-t.done:
			_ = conn.Close()
			return
		}
	}
}

// FinalAdvertiseAddr implements memberlist.Transport: where it listens, or a private address when that is everywhere.
func (t *gossipTransport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	at := t.s.tcp.Addr().(*net.TCPAddr)
	ip := at.IP
	if ip.IsUnspecified() {
		private, err := sockaddr.GetPrivateIP()
		if err == nil {
			ip = net.ParseIP(private)
		}
		if err != nil || ip == nil {
			return nil, 0, fault.New(fault.Invalid, "gossip listens everywhere, but this machine has no private address to give to peers; give one with --gossip")
		}
	}
	if v4 := ip.To4(); v4 != nil {
		ip = v4
	}
	return ip, at.Port, nil
}

// WriteTo implements memberlist.Transport.
func (t *gossipTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return time.Time{}, err
	}
	_, err = t.s.udp.WriteTo(b, to)
	return time.Now(), err
}

// PacketCh implements memberlist.Transport.
func (t *gossipTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// DialTimeout implements memberlist.Transport.
func (t *gossipTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", addr, timeout)
}

// StreamCh implements memberlist.Transport.
func (t *gossipTransport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown implements memberlist.Transport.
func (t *gossipTransport) Shutdown() error {
	t.once.Do(func() {
		close(t.done)
		t.s.Close()
	})
	t.wg.Wait()
	return nil
}

// addr is where peers reach this node.
func (t *gossipTransport) addr() (string, error) {
	ip, port, err := t.FinalAdvertiseAddr("", 0)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(ip.String(), strconv.Itoa(port)), nil
}
