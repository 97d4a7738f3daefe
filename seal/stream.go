package seal

import (
	"bufio"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	chunkSize    = 64 << 10
	saltSize     = 32
	boxSize      = chunkSize + chacha20poly1305.Overhead
	streamHeader = headerSize + saltSize
)

// StreamSize returns the length of a stream with n bytes of plaintext.
func StreamSize(n int64) int64 {
	chunks := max(1, (n+chunkSize-1)/chunkSize)
	return int64(streamHeader) + n + chunks*chacha20poly1305.Overhead
}

// chunkNonce numbers the chunks and marks the final one, so that none can be
// left out, repeated, moved or taken for the end.
func chunkNonce(n uint64, final bool) []byte {
	var nonce [chacha20poly1305.NonceSize]byte
	binary.BigEndian.PutUint64(nonce[3:11], n)
	if final {
		nonce[11] = 1
	}
	return nonce[:]
}

// StreamWriter seals what is written to it. Without Close the stream has no
// end, and a reader says so.
type StreamWriter struct {
	w    io.Writer
	aead cipher.AEAD
	buf  []byte // plaintext of the next chunk
	n    uint64 // its number
	err  error  // sticky
}

var errStreamClosed = errors.New("stream is closed")

// NewStreamWriter writes the head of a stream for this purpose and index to w.
// The caller closes the stream, then w.
func (k *Keyring) NewStreamWriter(w io.Writer, purpose string, index uint64) (*StreamWriter, error) {
	var salt [saltSize]byte
	_, _ = rand.Read(salt[:]) // never fails since Go 1.24
	return k.newStreamWriter(w, salt, purpose, index)
}

// newStreamWriter is NewStreamWriter with a chosen salt.
func (k *Keyring) newStreamWriter(w io.Writer, salt [saltSize]byte, purpose string, index uint64) (*StreamWriter, error) {
	key := k.keys.Load().active
	h := newHeader(formatStream, key.ID)
	aead, err := key.stream(salt[:], k.ctx.associated(h, purpose, index))
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(append(h[:], salt[:]...)); err != nil {
		return nil, fmt.Errorf("begin sealed stream: %w", err)
	}
	return &StreamWriter{w: w, aead: aead, buf: make([]byte, 0, boxSize)}, nil
}

// Write implements io.Writer.
func (s *StreamWriter) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	written := 0
	for len(p) > 0 {
		// A full chunk waits until more comes: the last one is marked.
		if len(s.buf) == chunkSize {
			if err := s.flush(false); err != nil {
				return written, err
			}
		}
		n := min(len(p), chunkSize-len(s.buf))
		s.buf = append(s.buf, p[:n]...)
		p, written = p[n:], written+n
	}
	return written, nil
}

// Close writes the final chunk. It does not close the underlying writer.
func (s *StreamWriter) Close() error {
	if s.err != nil {
		if errors.Is(s.err, errStreamClosed) {
			return nil
		}
		return s.err
	}
	if err := s.flush(true); err != nil {
		return err
	}
	s.err = errStreamClosed
	return nil
}

// Format implements fmt.Formatter: the plaintext in it does not print.
func (s *StreamWriter) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "sealed stream [redacted]")
}

func (s *StreamWriter) flush(final bool) error {
	box := s.aead.Seal(s.buf[:0], chunkNonce(s.n, final), s.buf, nil)
	if _, err := s.w.Write(box); err != nil {
		s.err = fmt.Errorf("write sealed stream: %w", err)
		return s.err
	}
	s.n++
	s.buf = s.buf[:0]
	return nil
}

// streamReader opens chunk by chunk.
type streamReader struct {
	r     *bufio.Reader
	aead  cipher.AEAD
	box   []byte // room for one chunk
	plain []byte // what is verified and not yet read
	n     uint64 // number of the next chunk
	err   error  // sticky; io.EOF after the final chunk
}

// NewStreamReader returns the plaintext of the stream in r, which must end
// where the stream ends. Only verified bytes come out; all of them did only
// when the reader returns io.EOF. Errors are those of Open.
func (k *Keyring) NewStreamReader(r io.Reader, purpose string, index uint64) (io.Reader, error) {
	s, err := k.newStreamReader(bufio.NewReaderSize(r, boxSize), purpose, index)
	if err != nil {
		return nil, fmt.Errorf("open sealed %s %d: %w", purpose, index, err)
	}
	return s, nil
}

func (k *Keyring) newStreamReader(r *bufio.Reader, purpose string, index uint64) (*streamReader, error) {
	head := make([]byte, streamHeader)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	key, h, err := k.openHeader(formatStream, head[:n])
	if err != nil {
		return nil, err
	}
	if n < streamHeader {
		return nil, ErrTruncated
	}
	aead, err := key.stream(head[headerSize:], k.ctx.associated(h, purpose, index))
	if err != nil {
		return nil, err
	}
	return &streamReader{r: r, aead: aead, box: make([]byte, boxSize)}, nil
}

// Read implements io.Reader.
func (s *streamReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(s.plain) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		if s.err = s.next(); s.err != nil && !errors.Is(s.err, io.EOF) {
			s.err = fmt.Errorf("read sealed stream, chunk %d: %w", s.n, s.err)
		}
	}
	n := copy(p, s.plain)
	s.plain = s.plain[n:]
	return n, nil
}

// Format implements fmt.Formatter: the plaintext in it does not print.
func (s *streamReader) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "sealed stream [redacted]")
}

// next verifies one chunk. After the final one it returns io.EOF, with the
// plaintext in place.
func (s *streamReader) next() error {
	n, err := io.ReadFull(s.r, s.box)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if n < chacha20poly1305.Overhead {
		return ErrTruncated
	}
	_, err = s.r.Peek(1)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	final := err != nil
	plain, err := s.aead.Open(nil, chunkNonce(s.n, final), s.box[:n], nil)
	if err != nil {
		return s.diagnose(s.box[:n], final)
	}
	if final && len(plain) == 0 && s.n > 0 {
		return fmt.Errorf("empty final chunk: %w", ErrTampered)
	}
	s.plain = plain
	s.n++
	if final {
		return io.EOF
	}
	return nil
}

// diagnose tells why a chunk did not open: a good chunk where the stream ends
// too early or goes on too long, or no good chunk.
func (s *streamReader) diagnose(box []byte, final bool) error {
	if _, err := s.aead.Open(nil, chunkNonce(s.n, !final), box, nil); err != nil {
		return ErrTampered
	}
	if final {
		return ErrTruncated
	}
	return fmt.Errorf("bytes after the final chunk: %w", ErrTampered)
}
