package ports

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// TestReserve: a reserved port is refused to who knocks, and can be listened at again and again, but by one at a time.
func TestReserve(t *testing.T) {
	port, release, err := Reserve()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	addr := fmt.Sprint("127.0.0.1:", port)
	for range 3 {
		if c, err := net.Dial("tcp", addr); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Fatalf("somebody answers there: %v %v", c, err)
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := net.Listen("tcp", addr); err == nil {
			second.Close()
			t.Error("two listen at one port")
		}
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		l.Close()
	}
	given := map[int]bool{port: true}
	for range 300 {
		p, release, err := Reserve()
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		if given[p] {
			t.Fatalf("port %d is given twice", p)
		}
		given[p] = true
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if p := l.Addr().(*net.TCPAddr).Port; given[p] {
			t.Fatalf("a listener got the reserved port %d", p)
		}
	}
}
