// Verify, log, answer, drop repeats, route, forward: on the standard library alone.
package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	maxBody = 4 << 20 // the provider sends at most 3 MB
	ttl     = time.Hour
)

func env(name, fallback string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return fallback
}

var verifyToken = []byte(env("VERIFY_TOKEN", "test-verify-token"))

// ---- signatures: keyed states are reused, since making one hashes two blocks more ----

type key struct{ states sync.Pool }

var keys []*key

func init() {
	for _, secret := range strings.Split(env("APP_SECRET", "test-app-secret"), ",") {
		secret := []byte(secret)
		keys = append(keys, &key{sync.Pool{New: func() any { return hmac.New(sha256.New, secret) }}})
	}
}

func (k *key) sum(body []byte, out []byte) []byte {
	h := k.states.Get().(hash.Hash)
	h.Reset()
	h.Write(body)
	out = h.Sum(out)
	k.states.Put(h)
	return out
}

// signer tells which key signed; -1: none.
func signer(body []byte, header string) int {
	var given, own [sha256.Size]byte
	if len(header) != 71 || header[:7] != "sha256=" {
		return -1
	}
	if _, err := hex.Decode(given[:], []byte(header[7:])); err != nil {
		return -1
	}
	found := -1
	for i, k := range keys {
		if subtle.ConstantTimeCompare(k.sum(body, own[:0]), given[:]) == 1 && found < 0 {
			found = i
		}
	}
	return found
}

// ---- request path ----

type server struct {
	raw    *rawLog
	dedupe *dedupe
	router *router
}

func (s *server) webhook(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet:
		q := r.URL.Query()
		if q.Get("hub.mode") == "subscribe" &&
			subtle.ConstantTimeCompare([]byte(q.Get("hub.verify_token")), verifyToken) == 1 {
			w.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(w, q.Get("hub.challenge"))
			return
		}
		http.Error(w, "forbidden", http.StatusForbidden)
		return
	case http.MethodPost:
	default:
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	if s.router.full() {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "busy", http.StatusServiceUnavailable)
		return
	}
	if r.ContentLength < 0 || r.ContentLength > maxBody {
		http.Error(w, "body", http.StatusRequestEntityTooLarge)
		return
	}
	header := r.Header.Get("X-Hub-Signature-256")
	// The record is read in place behind its head, so that nothing is copied to be logged.
	record := make([]byte, 0, 128+int(r.ContentLength))
	record = strconv.AppendInt(record, time.Now().UnixMilli(), 10)
	record = append(record, ' ')
	record = strconv.AppendInt(record, r.ContentLength, 10)
	record = append(record, ' ')
	if len(header) == 71 {
		record = append(record, header[7:]...)
	}
	record = append(record, '\n')
	start := len(record)
	record = record[:start+int(r.ContentLength)]
	body := record[start:]
	if _, err := io.ReadFull(r.Body, body); err != nil {
		http.Error(w, "body", http.StatusBadRequest)
		return
	}
	by := signer(body, header)
	if by < 0 {
		http.Error(w, "bad signature", http.StatusUnauthorized)
		return
	}
	if err := s.raw.append(append(record, '\n')); err != nil {
		http.Error(w, "log", http.StatusInternalServerError)
		return
	}
	s.dispatch(body, header[7:], by == 0)
	w.WriteHeader(http.StatusOK)
}

type event struct {
	ID          string `json:"id"`
	From        string `json:"from"`
	Status      string `json:"status"`
	RecipientID string `json:"recipient_id"`
}

// keyAndPhone: one id is sent, delivered and read, so the status belongs to the key.
func (e *event) keyAndPhone(status bool) (string, string) {
	if status {
		return "s:" + e.ID + ":" + e.Status, e.RecipientID
	}
	return "m:" + e.ID, e.From
}

// document is all that a webhook of one event needs.
type document struct {
	Entry []struct {
		Changes []struct {
			Value struct {
				Messages []event `json:"messages"`
				Statuses []event `json:"statuses"`
			} `json:"value"`
		} `json:"changes"`
	} `json:"entry"`
}

func (s *server) dispatch(body []byte, sig string, withFirst bool) {
	var doc document
	if err := json.Unmarshal(body, &doc); err != nil || doc.Entry == nil {
		s.router.dead(&job{key: sig, body: body}, "signed but not a webhook")
		return
	}
	count, status := 0, false
	var one *event
	for i := range doc.Entry {
		for c := range doc.Entry[i].Changes {
			v := &doc.Entry[i].Changes[c].Value
			count += len(v.Messages) + len(v.Statuses)
			if len(v.Messages) > 0 {
				one, status = &v.Messages[0], false
			} else if len(v.Statuses) > 0 {
				one, status = &v.Statuses[0], true
			}
		}
	}
	switch {
	case count == 0:
		s.send("w:"+sig, "", body, sig)
	case count == 1 && withFirst:
		// Goes on as it came; only others are cut, encoded and signed anew.
		key, phone := one.keyAndPhone(status)
		s.send(key, phone, body, sig)
	default:
		s.cut(body)
	}
}

func (s *server) send(key, phone string, body []byte, sig string) {
	if s.dedupe.fresh(key) {
		s.router.submit(&job{key: key, body: body, sig: sig, up: s.router.route(phone)})
	}
}

// whole keeps every byte of an event.
type whole struct {
	Object string `json:"object"`
	Entry  []struct {
		ID      string `json:"id"`
		Changes []struct {
			Field string `json:"field"`
			Value value  `json:"value"`
		} `json:"changes"`
	} `json:"entry"`
}

type value struct {
	MessagingProduct string            `json:"messaging_product,omitempty"`
	Metadata         json.RawMessage   `json:"metadata,omitempty"`
	Contacts         json.RawMessage   `json:"contacts,omitempty"`
	Messages         []json.RawMessage `json:"messages,omitempty"`
	Statuses         []json.RawMessage `json:"statuses,omitempty"`
}

func (s *server) cut(body []byte) {
	var doc whole
	if json.Unmarshal(body, &doc) != nil {
		return
	}
	for _, entry := range doc.Entry {
		for _, change := range entry.Changes {
			one := func(raw json.RawMessage, status bool, v value) {
				var e event
				_ = json.Unmarshal(raw, &e)
				key, phone := e.keyAndPhone(status)
				type m = map[string]any
				body, err := json.Marshal(m{"object": doc.Object, "entry": []m{{"id": entry.ID,
					"changes": []m{{"field": change.Field, "value": v}}}}})
				if err == nil {
					s.send(key, phone, body, hex.EncodeToString(keys[0].sum(body, nil)))
				}
			}
			v := change.Value
			messages, statuses := v.Messages, v.Statuses
			for _, raw := range messages {
				v.Messages, v.Statuses = []json.RawMessage{raw}, nil
				one(raw, false, v)
			}
			for _, raw := range statuses {
				v.Messages, v.Statuses = nil, []json.RawMessage{raw}
				one(raw, true, v)
			}
		}
	}
}

func main() {
	run := env("RUN", ".")
	s := &server{
		raw:    openLog(filepath.Join(run, "raw.log"), os.Getenv("SYNC") == "group"),
		dedupe: newDedupe(),
		router: newRouter(env("UPSTREAMS", "*=http://127.0.0.1:9100/in"), openLog(filepath.Join(run, "dead.log"), false)),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/webhook", s.webhook)
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	srv := &http.Server{Addr: "127.0.0.1:" + env("PORT", "8084"), Handler: mux,
		ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 75 * time.Second}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		defer cancel()
		_ = srv.Shutdown(ctx)
		drained := make(chan struct{})
		go func() { s.router.jobs.Wait(); close(drained) }()
		select {
		case <-drained:
		case <-ctx.Done():
		}
		os.Exit(0)
	}()
	log.Printf("listening on %s", srv.Addr)
	if err := srv.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	select {} // the signal handler exits once the queues are empty
}
