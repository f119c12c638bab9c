package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// inSpace is set in the environment of a process that enter has started.
const inSpace = "MILLRACE_CHAOS_SPACE"

// enter gives a user who isn't root a user namespace in which they are: the program runs once more in it, with networks
// and mounts of its own, and done is true with its exit code. Where the kernel doesn't allow that, and for root, nothing
// happens: what needs these rights is then left out, and said.
func enter() (code int, done bool) {
	if os.Getenv(inSpace) != "" {
		if err := furnish(); err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
		}
		return 0, false
	}
	if os.Geteuid() == 0 {
		return 0, false
	}
	self, err := os.Executable()
	if err != nil {
		return 0, false
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inSpace+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGTERM,
	}
	signals := make(chan os.Signal, 4) // the child has a Ctrl-C from the terminal itself
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, false // not allowed here
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			if s == syscall.SIGTERM {
				_ = cmd.Process.Signal(s)
			}
		case err := <-ended:
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				return max(exit.ExitCode(), 1), true
			} else if err != nil {
				fmt.Fprintln(os.Stderr, "chaos:", err)
				return 1, true
			}
			return 0, true
		}
	}
}

// furnish makes what the tools expect in a new namespace: a /run for the names of networks, and the loopback device.
func furnish() error {
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("/run in a user namespace: %w", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("the loopback device in a user namespace: %w: %s", err, out)
	}
	return nil
}
