package main

import (
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// kernel is what the kernel says of itself below a directory, which is /proc elsewhere than in tests. The settings of TCP are those
// of the network namespace that we are in.
type kernel struct{ proc string }

var thisKernel = kernel{"/proc"}

// setting is a number among the settings, by its name for sysctl(8).
func (k kernel) setting(name string) (n int, known bool) {
	text, err := os.ReadFile(filepath.Join(k.proc, "sys", strings.ReplaceAll(name, ".", "/")))
	if err != nil {
		return 0, false
	}
	n, err = strconv.Atoi(strings.TrimSpace(string(text)))
	return n, err == nil
}

// tcp is a setting of TCP, or what Linux has where it cannot be read.
func (k kernel) tcp(name string, otherwise int) int {
	if n, known := k.setting("net.ipv4." + name); known {
		return n
	}
	return otherwise
}

// counter is a number in /proc/net/netstat, where a line of names is followed by a line of values, or in /proc/net/sockstat, where
// names and values take turns.
func (k kernel) counter(file, section, name string) (n int, known bool) {
	text, err := os.ReadFile(filepath.Join(k.proc, "thread-self/net", file))
	if err != nil {
		return 0, false
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != section+":" {
			continue
		}
		for i, word := range words {
			var value string
			switch {
			case i < len(names) && names[i] == name:
				value = word
			case word == name && i+1 < len(words):
				value = words[i+1]
			}
			if n, err := strconv.Atoi(value); err == nil {
				return n, true
			}
		}
		names = words
	}
	return 0, false
}

// timeWait is how long TIME-WAIT lasts: TCP_TIMEWAIT_LEN of linux/net/tcp.h, which no setting changes.
const timeWait = 60 * time.Second

// finTimeout is how long FIN-WAIT-2 lasts once no process has the socket.
func (k kernel) finTimeout() time.Duration {
	return time.Duration(k.tcp("tcp_fin_timeout", 60)) * time.Second
}

// givesUp is how long the kernel sends something again, at the least, until so many retransmissions are over. As
// tcp_model_timeout in linux/net/ipv4/tcp_timer.c has it, the pauses double from the first one up to two minutes.
func givesUp(retransmissions int, first time.Duration) time.Duration {
	const longest = 2 * time.Minute
	doublings := bits.Len64(uint64(longest/first)) - 1
	if retransmissions <= doublings {
		return first * (2<<retransmissions - 1)
	}
	return first*(2<<doublings-1) + time.Duration(retransmissions-doublings)*longest
}

// The first pauses, of data and FIN (TCP_RTO_MIN) and of SYN (TCP_TIMEOUT_INIT).
const (
	firstAgain    = 200 * time.Millisecond
	firstSYNAgain = time.Second
)

// orphanGivesUp is the same for a socket that no process has.
func (k kernel) orphanGivesUp() time.Duration {
	n := k.tcp("tcp_orphan_retries", 0)
	if n == 0 {
		n = 8 // tcp_orphan_retries() in the same file
	}
	return givesUp(n, firstAgain)
}

// about is a duration as people say it.
func about(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return strconv.FormatFloat(d.Round(time.Second).Seconds(), 'f', 0, 64) + " s"
	case d < 2*time.Hour:
		return strconv.FormatFloat(d.Round(time.Minute).Minutes(), 'f', 0, 64) + " min"
	}
	return strconv.FormatFloat(d.Hours(), 'f', 1, 64) + " h"
}
