// A chat server as a good Go engineer would write it, for comparison: two goroutines a client, one that
// appends to the log and hands out, bounded channels that never drop: who is slow slows all down.
// Token, log, durability and order are those of papayad; with -tls, TLS 1.3.
//
//	chat -listen ADDRESS -log FILE -token-file FILE [-tls]
//
// A line each way: "join TOKEN NAME", then "say TEXT"; "ok", then "SEQUENCE NAME TEXT".
package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"log"
	"math/big"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	queue    = 256       // messages, and batches, that may wait in a channel
	batchMax = 64 << 10  // bytes of messages handed out together
	lineMax  = 128 << 10 // bytes
	grace    = 20 * time.Second
)

type message struct{ from, text string }

type client struct {
	conn net.Conn
	name string
	out  chan []byte
	gone chan struct{}
	once sync.Once
}

func (c *client) close() { c.once.Do(func() { close(c.gone); c.conn.Close() }) }

type room struct {
	messages chan message
	joins    chan *client
	leaves   chan *client
	file     *os.File
	hash     [sha256.Size]byte
}

// The only goroutine that knows who is here, and that writes the log.
func (r *room) run() {
	clients := map[*client]struct{}{}
	sequence, unsynced := uint64(0), false
	second := time.NewTicker(time.Second)
	for {
		select {
		case c := <-r.joins:
			clients[c] = struct{}{}
		case c := <-r.leaves:
			delete(clients, c)
		case <-second.C:
			if unsynced {
				unsynced = false
				if err := r.file.Sync(); err != nil {
					log.Print(err)
				}
			}
		case m := <-r.messages:
			// What waits already goes out together.
			var batch []byte
			for more := true; more; {
				sequence++
				batch = strconv.AppendUint(batch, sequence, 10)
				batch = append(batch, ' ')
				batch = append(batch, m.from...)
				batch = append(batch, ' ')
				batch = append(batch, m.text...)
				batch = append(batch, '\n')
				if len(batch) >= batchMax {
					break
				}
				select {
				case m = <-r.messages:
				default:
					more = false
				}
			}
			if _, err := r.file.Write(batch); err != nil {
				log.Fatal(err)
			}
			unsynced = true
			for c := range clients {
				select {
				case c.out <- batch:
				case <-c.gone:
				}
			}
		}
	}
}

func (c *client) write() {
	defer c.close()
	for {
		var buffers net.Buffers
		select {
		case b := <-c.out:
			buffers = append(buffers, b)
		case <-c.gone:
			return
		}
		for more := true; more && len(buffers) < queue; {
			select {
			case b := <-c.out:
				buffers = append(buffers, b)
			default:
				more = false
			}
		}
		if _, plain := c.conn.(*net.TCPConn); plain {
			if _, err := buffers.WriteTo(c.conn); err != nil {
				return
			}
			continue
		}
		// One record, and so one call, for as much as there is.
		joined := buffers[0]
		for _, b := range buffers[1:] {
			joined = append(joined[:len(joined):len(joined)], b...)
		}
		if _, err := c.conn.Write(joined); err != nil {
			return
		}
	}
}

func (r *room) serve(conn net.Conn) {
	c := &client{conn: conn, out: make(chan []byte, queue), gone: make(chan struct{})}
	defer c.close()
	conn.SetDeadline(time.Now().Add(grace))
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 4096), lineMax)
	if !lines.Scan() {
		return
	}
	words := strings.SplitN(lines.Text(), " ", 3)
	if len(words) != 3 || words[0] != "join" {
		return
	}
	given := sha256.Sum256([]byte(words[1]))
	if subtle.ConstantTimeCompare(given[:], r.hash[:]) != 1 {
		return
	}
	conn.SetDeadline(time.Time{})
	c.name = words[2]
	if _, err := conn.Write([]byte("ok\n")); err != nil {
		return
	}
	r.joins <- c
	defer func() { r.leaves <- c }()
	go c.write()
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "say "); ok {
			r.messages <- message{c.name, text}
		}
	}
}

func certificate() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		log.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address")
	logFile := flag.String("log", "", "file to append to")
	tokenFile := flag.String("token-file", "", "file with the token")
	withTLS := flag.Bool("tls", false, "TLS 1.3")
	flag.Parse()
	token, err := os.ReadFile(*tokenFile)
	if err != nil {
		log.Fatal(err)
	}
	file, err := os.OpenFile(*logFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		log.Fatal(err)
	}
	r := &room{
		messages: make(chan message, queue), joins: make(chan *client), leaves: make(chan *client, queue),
		file: file, hash: sha256.Sum256([]byte(strings.TrimSpace(string(token)))),
	}
	go r.run()
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	if *withTLS {
		listener = tls.NewListener(listener, &tls.Config{
			Certificates: []tls.Certificate{certificate()}, MinVersion: tls.VersionTLS13,
		})
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Print(err)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		go r.serve(conn)
	}
}
