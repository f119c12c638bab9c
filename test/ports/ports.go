// Package ports keeps TCP ports of 127.0.0.1 for tests whose processes listen at the same address again after they died.
// A port that was only free when it was chosen is given to whoever asks next, such as another package's tests.
package ports

import "syscall"

// Reserve keeps a port and returns it: nobody listens there, nobody else is given it, and a process that is told to can listen
// there. release gives it up.
func Reserve() (port int, release func(), err error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, err
	}
	// Where all sides say SO_REUSEADDR, as Go's listeners do, many sockets may have a port of which one listens.
	err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	var sa syscall.Sockaddr
	if err == nil {
		sa, err = syscall.Getsockname(fd)
	}
	if err != nil {
		syscall.Close(fd)
		return 0, nil, err
	}
	return sa.(*syscall.SockaddrInet4).Port, func() { syscall.Close(fd) }, nil
}
