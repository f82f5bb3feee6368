package rsh

import (
	"io"
	"net"
	"sync"
	"time"
)

const (
	// answered is how long the host may take to answer release.
	answered = time.Second
	// refused is how long a host that lets nobody in may take to end its stderr channel.
	refused = 500 * time.Millisecond
)

// closing is the stderr channels that are being released, behind sessions that are over. They take no slot of the caller's.
type closing struct{ sync.WaitGroup }

// release gives the host its reserved port back, after the end of file on a stderr channel, and closes the channel.
//
// A reset from us would do it, nearly always: until the host's kernel is through with the close(2) whose end of file we have just read it
// throws a reset away, and a reset is sent once. The port then stays in FIN_WAIT_2 until tcp_fin_timeout. So we send a byte: nobody
// is there to read it, the host's kernel answers it with a reset of its own (RFC 9293 section 3.6.1), and if it throws that byte away ours
// sends it again. The byte is 0, which as a signal number of rcmd(3) would mean nothing.
func release(conn *net.TCPConn) {
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	conn.SetDeadline(time.Now().Add(answered))
	if _, err := conn.Write([]byte{0}); err == nil {
		raw.Read(isClosed)
	}
}

// ending releases a channel that the host is about to close.
func (c *closing) ending(conn *net.TCPConn) {
	c.Go(func() {
		conn.SetReadDeadline(time.Now().Add(refused))
		if _, err := io.Copy(io.Discard, conn); err != nil {
			conn.Close()
			return
		}
		release(conn)
	})
}
