package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math"
	"math/rand"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	senders     = 32 // connections by upstream
	queueMax    = 100000
	maxAttempts = 8
)

// ---- dedupe: shards of two generations that take turns ----

type shard struct {
	sync.Mutex
	young, old map[string]struct{}
}

type dedupe [64]shard

func newDedupe() *dedupe {
	d := &dedupe{}
	for i := range d {
		d[i].young, d[i].old = map[string]struct{}{}, map[string]struct{}{}
	}
	go func() {
		for range time.Tick(ttl / 2) {
			for i := range d {
				s := &d[i]
				s.Lock()
				s.old, s.young = s.young, make(map[string]struct{}, len(s.young)/2)
				s.Unlock()
			}
		}
	}()
	return d
}

func (d *dedupe) fresh(key string) bool {
	h := uint32(2166136261)
	for i := 0; i < len(key); i++ {
		h = (h ^ uint32(key[i])) * 16777619
	}
	s := &d[h%uint32(len(d))]
	s.Lock()
	defer s.Unlock()
	if _, ok := s.young[key]; ok {
		return false
	}
	if _, ok := s.old[key]; ok {
		return false
	}
	s.young[key] = struct{}{}
	return true
}

// ---- forwarding ----

type job struct {
	key, sig string
	body     []byte
	up       *upstream
	attempts int
}

type upstream struct {
	url   *url.URL
	queue chan *job
}

type prefix struct {
	digits string
	up     *upstream
}

type router struct {
	prefixes  []prefix // longest first
	fallback  *upstream
	transport *http.Transport
	deadLog   *rawLog
	depth     atomic.Int64
	jobs      sync.WaitGroup
}

func newRouter(spec string, deadLog *rawLog) *router {
	// Without http.Client, whose time-out, cookies and redirects cost and are not needed.
	r := &router{deadLog: deadLog, transport: &http.Transport{MaxIdleConnsPerHost: 8 * senders,
		IdleConnTimeout: 60 * time.Second, ResponseHeaderTimeout: 5 * time.Second, DisableCompression: true}}
	ups := map[string]*upstream{}
	for _, pair := range strings.Split(spec, ",") {
		digits, target, ok := strings.Cut(pair, "=")
		if !ok {
			log.Fatalf("UPSTREAMS: %q is not prefix=url", pair)
		}
		u := ups[target]
		if u == nil {
			parsed, err := url.Parse(target)
			if err != nil {
				log.Fatalf("UPSTREAMS: %v", err)
			}
			u = &upstream{url: parsed, queue: make(chan *job, queueMax)}
			ups[target] = u
			for i := 0; i < senders; i++ {
				go r.sender(u)
			}
		}
		if digits == "*" {
			r.fallback = u
		} else {
			r.prefixes = append(r.prefixes, prefix{digits, u})
		}
	}
	if r.fallback == nil {
		log.Fatal("UPSTREAMS needs a *=url entry")
	}
	sort.Slice(r.prefixes, func(i, j int) bool { return len(r.prefixes[i].digits) > len(r.prefixes[j].digits) })
	return r
}

func (r *router) full() bool { return r.depth.Load() >= queueMax }

func (r *router) route(phone string) *upstream {
	if phone != "" {
		for _, p := range r.prefixes {
			if strings.HasPrefix(phone, p.digits) {
				return p.up
			}
		}
	}
	return r.fallback
}

func (r *router) submit(j *job) {
	r.jobs.Add(1)
	r.depth.Add(1)
	r.enqueue(j)
}

func (r *router) enqueue(j *job) {
	select {
	case j.up.queue <- j:
	default:
		r.dead(j, "queue full")
		r.finish()
	}
}

func (r *router) finish() { r.depth.Add(-1); r.jobs.Done() }

func (r *router) dead(j *job, reason string) {
	line, _ := json.Marshal(map[string]any{"key": j.key, "attempts": j.attempts, "reason": reason, "body": string(j.body)})
	_ = r.deadLog.append(append(line, '\n'))
}

func (r *router) sender(u *upstream) {
	for j := range u.queue {
		j.attempts++
		status, after, err := r.post(j)
		if status >= 200 && status < 300 {
			r.finish()
			continue
		}
		reason := fmt.Sprintf("status %d", status)
		if err != nil {
			reason = err.Error()
		}
		permanent := status >= 400 && status < 500 && status != 408 && status != 429
		if permanent || j.attempts >= maxAttempts {
			r.dead(j, reason)
			r.finish()
			continue
		}
		ceiling := math.Min(30, 0.2*math.Pow(2, float64(j.attempts)))
		delay := time.Duration(rand.Float64() * ceiling * float64(time.Second)) // full jitter
		if after > 0 {
			delay = after
		}
		retry := j
		time.AfterFunc(delay, func() { r.enqueue(retry) })
	}
}

var jsonType = []string{"application/json"}

func (r *router) post(j *job) (int, time.Duration, error) {
	req := &http.Request{Method: http.MethodPost, URL: j.up.url, Host: j.up.url.Host, ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": jsonType, "X-Hub-Signature-256": {"sha256=" + j.sig}, "Webhook-Id": {j.key}},
		Body:   io.NopCloser(bytes.NewReader(j.body)), ContentLength: int64(len(j.body))}
	res, err := r.transport.RoundTrip(req)
	if err != nil {
		return 0, 0, err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20))
	res.Body.Close()
	after, _ := strconv.Atoi(res.Header.Get("Retry-After"))
	return res.StatusCode, time.Duration(min(after, 300)) * time.Second, nil
}
