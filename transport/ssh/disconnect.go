package ssh

import (
	"encoding/binary"
	"errors"
	"reflect"
	"unsafe"

	"golang.org/x/crypto/ssh"
)

// SSH_MSG_DISCONNECT (RFC 4253 section 11.1) with a reason of ours is what makes an sshd close first. x/crypto/ssh has no exported way to
// send it (golang/go#37913), so this file reaches for the one function that sends a packet. When the library changes so that the
// function is not found where it was, disconnect says errNoDisconnect and connections are closed with a reset instead;
// TestDisconnectLayout tells which it is. When the issue is solved this file goes.

var errNoDisconnect = errors.New("this version of x/crypto/ssh gives no way to send a disconnect")

const (
	msgDisconnect = 1
	byApplication = 11 // sshd logs any other reason as an error
)

//go:linkname writePacket golang.org/x/crypto/ssh.(*handshakeTransport).writePacket
func writePacket(transport unsafe.Pointer, packet []byte) error

// disconnect tells the server that we are done. It may block as a write does.
func disconnect(conn ssh.Conn) error {
	transport := transportOf(conn)
	if transport == nil {
		return errNoDisconnect
	}
	return writePacket(transport, disconnectPacket("disconnected by user"))
}

func disconnectPacket(text string) []byte {
	p := binary.BigEndian.AppendUint32([]byte{msgDisconnect}, byApplication)
	p = binary.BigEndian.AppendUint32(p, uint32(len(text)))
	p = append(p, text...)
	return binary.BigEndian.AppendUint32(p, 0) // no language tag
}

// transportOf finds the *handshakeTransport in a connection of package ssh; nil if it is not where it was.
func transportOf(conn ssh.Conn) unsafe.Pointer {
	v := reflect.ValueOf(conn)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return nil
	}
	field := v.Elem().FieldByName("transport")
	if field.IsValid() && field.Kind() == reflect.Interface {
		field = field.Elem()
	}
	if !field.IsValid() || field.Kind() != reflect.Pointer || field.IsNil() || field.Type().String() != "*ssh.handshakeTransport" {
		return nil
	}
	return field.UnsafePointer()
}
