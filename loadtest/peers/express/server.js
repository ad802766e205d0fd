'use strict';
// Verify, log, answer, drop repeats, route, forward: Express, Node's crypto, undici's client.
const crypto = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');
const express = require('express');
const { Pool } = require('undici');

const env = process.env;
const PORT = Number(env.PORT || 8082);
const SECRETS = (env.APP_SECRET || 'test-app-secret').split(',').filter(Boolean);
const VERIFY_TOKEN = env.VERIFY_TOKEN || 'test-verify-token';
const RUN = env.RUN || '.';
const SYNC = env.SYNC === 'group';
const TTL = 3600;
const SENDERS = 32;            // connections by upstream
const QUEUE_MAX = 100000;
const MAX_ATTEMPTS = 8;

// First in, first out; an array's own shift() moves all that is behind.
class Queue {
  constructor() { this.items = []; this.head = 0; }
  push(item) { this.items.push(item); }
  get length() { return this.items.length - this.head; }
  shift() {
    const item = this.items[this.head];
    this.items[this.head] = undefined;
    this.head += 1;
    if (this.head > 1024 && this.head * 2 > this.items.length) { this.items = this.items.slice(this.head); this.head = 0; }
    return item;
  }
}

const upstreams = new Map();
const prefixes = [];
let fallback;
for (const pair of (env.UPSTREAMS || '*=http://127.0.0.1:9100/in').split(',')) {
  const at = pair.indexOf('=');
  const [prefix, target] = [pair.slice(0, at), pair.slice(at + 1)];
  if (!upstreams.has(target)) {
    const url = new URL(target);
    const pool = new Pool(url.origin, { connections: SENDERS, pipelining: 1, headersTimeout: 5000, bodyTimeout: 5000 });
    upstreams.set(target, { pool, path: url.pathname, queue: new Queue(), active: 0 });
  }
  if (prefix === '*') fallback = upstreams.get(target);
  else prefixes.push({ prefix, up: upstreams.get(target) });
}
if (!fallback) throw new Error('UPSTREAMS needs a *=url entry');
prefixes.sort((a, b) => b.prefix.length - a.prefix.length);
const route = (phone) => {
  if (phone) for (const { prefix, up } of prefixes) if (phone.startsWith(prefix)) return up;
  return fallback;
};

const hmac = (secret, body) => crypto.createHmac('sha256', secret).update(body).digest();

// Which secret signed; -1: none.
function signer(body, header) {
  if (typeof header !== 'string' || !/^sha256=[0-9a-fA-F]{64}$/.test(header)) return -1;
  const given = Buffer.from(header.slice(7), 'hex');
  let found = -1;
  SECRETS.forEach((secret, at) => {
    if (crypto.timingSafeEqual(hmac(secret, body), given) && found < 0) found = at;
  });
  return found;
}

// To the page cache a write is cheaper than its way through the thread pool. Synced, what waits while the disk is
// busy is written and synced together.
class RawLog {
  constructor(name, sync) {
    this.fd = fs.openSync(path.join(RUN, name), 'a');
    this.sync = sync;
    this.waiting = [];
    this.busy = false;
  }
  write(buffers) {
    const all = Buffer.concat(buffers);
    if (fs.writeSync(this.fd, all) !== all.length) throw new Error('short write');
  }
  append(buffers) {
    if (!this.sync) { this.write(buffers); return undefined; }
    return new Promise((resolve, reject) => {
      this.waiting.push({ buffers, resolve, reject });
      if (!this.busy) { this.busy = true; setImmediate(() => this.flush()); }
    });
  }
  flush() {
    const batch = this.waiting;
    this.waiting = [];
    const done = (err) => {
      for (const w of batch) if (err) w.reject(err); else w.resolve();
      if (this.waiting.length) this.flush(); else this.busy = false;
    };
    try { this.write(batch.flatMap((w) => w.buffers)); } catch (err) { done(err); return; }
    fs.fdatasync(this.fd, done);
  }
}

const raw = new RawLog('raw.log', SYNC);
const deadLog = new RawLog('dead.log', false);
let depth = 0;

// Two generations that take turns.
let young = new Set();
let old = new Set();
setInterval(() => { old = young; young = new Set(); }, TTL * 500).unref();
function fresh(key) {
  if (young.has(key) || old.has(key)) return false;
  young.add(key);
  return true;
}

function dead(job, reason) {
  deadLog.append([Buffer.from(`${JSON.stringify({ key: job.key, attempts: job.attempts, reason, body: job.body.toString() })}\n`)]);
}

function pump(up) {
  while (up.active < SENDERS && up.queue.length) { up.active += 1; attempt(up.queue.shift()); }
}
function enqueue(job) { job.up.queue.push(job); pump(job.up); }

// undici's `dispatch` is its fastest call: no promise and no stream by request.
function attempt(job) {
  const { up } = job;
  job.attempts += 1;
  let status = 0;
  let retryAfter = 0;
  const finish = (reason) => {
    up.active -= 1;
    if (status >= 200 && status < 300) { depth -= 1; pump(up); return; }
    const permanent = status >= 400 && status < 500 && status !== 408 && status !== 429;
    if (permanent || job.attempts >= MAX_ATTEMPTS) {
      depth -= 1;
      dead(job, reason || `status ${status}`);
    } else {
      const cap = Math.min(30, 0.2 * 2 ** job.attempts);
      const delay = retryAfter ? Math.min(retryAfter, 300) : Math.random() * cap;   // full jitter
      setTimeout(enqueue, delay * 1000, job);
    }
    pump(up);
  };
  up.pool.dispatch({
    path: up.path,
    method: 'POST',
    headers: ['content-type', 'application/json', 'x-hub-signature-256', `sha256=${job.sig}`, 'webhook-id', job.key],
    body: job.body,
  }, {
    onRequestStart() {},
    onResponseStart(_controller, code, headers) { status = code; retryAfter = Number(headers['retry-after']) || 0; },
    onResponseData() {},
    onResponseEnd() { finish(); },
    onResponseError(_controller, error) { status = 0; finish(error.message); },
  });
}

function send(key, phone, body, sig) {
  if (!fresh(key)) return;
  depth += 1;
  enqueue({ key, sig, body, up: route(phone), attempts: 0 });
}

// One id is sent, delivered and read: the status belongs to the key.
const keyAndPhone = (name, event) => (name === 'messages'
  ? [`m:${event.id}`, event.from] : [`s:${event.id}:${event.status}`, event.recipient_id]);

function dispatch(body, sig, withFirst) {
  let doc;
  try { doc = JSON.parse(body); } catch { /* falls through */ }
  if (!doc || !Array.isArray(doc.entry)) { dead({ key: sig, body, attempts: 0 }, 'signed but not a webhook'); return; }
  const events = [];
  for (const entry of doc.entry) {
    for (const change of entry.changes || []) {
      const value = change.value || {};
      for (const name of ['messages', 'statuses']) {
        for (const event of value[name] || []) events.push({ name, event, entry, change });
      }
    }
  }
  if (!events.length) { send(`w:${sig}`, undefined, body, sig); return; }
  for (const { name, event, entry, change } of events) {
    const [key, phone] = keyAndPhone(name, event);
    // A webhook of one event goes on as it came; only others are cut, encoded and signed anew.
    if (events.length === 1 && withFirst) { send(key, phone, body, sig); continue; }
    const { messaging_product, metadata, contacts } = change.value;
    const value = { messaging_product, metadata, contacts, [name]: [event] };
    const cut = Buffer.from(JSON.stringify({ object: doc.object, entry: [{ id: entry.id, changes: [{ field: change.field, value }] }] }));
    send(key, phone, cut, hmac(SECRETS[0], cut).toString('hex'));
  }
}

const app = express();
app.disable('x-powered-by');
app.disable('etag');
app.get('/healthz', (_req, res) => res.type('text').send('ok\n'));
app.get('/webhook', (req, res) => {
  const q = req.query;
  const a = Buffer.from(String(q['hub.verify_token'] || ''));
  const b = Buffer.from(VERIFY_TOKEN);
  if (q['hub.mode'] === 'subscribe' && a.length === b.length && crypto.timingSafeEqual(a, b)) {
    return res.type('text').send(String(q['hub.challenge'] || ''));
  }
  return res.status(403).type('text').send('forbidden\n');
});
app.post('/webhook', (_req, res, next) => {
  if (depth < QUEUE_MAX) return next();
  return res.set('Retry-After', '1').status(503).end();
}, express.raw({ type: () => true, limit: '4mb', inflate: false }), async (req, res) => {
  const body = Buffer.isBuffer(req.body) ? req.body : Buffer.alloc(0);
  const header = req.headers['x-hub-signature-256'];
  const by = signer(body, header);
  if (by < 0) return res.status(401).type('text').send('bad signature\n');
  const sig = header.slice(7);
  try {
    const kept = raw.append([Buffer.from(`${Date.now()} ${body.length} ${sig}\n`), body, Buffer.from('\n')]);
    if (kept) await kept;
  } catch {
    return res.status(500).type('text').send('log\n');
  }
  dispatch(body, sig, by === 0);
  return res.status(200).end();
});
app.use((err, _req, res, _next) => res.status(err.status || 500).type('text').send(`${err.type || 'error'}\n`));

const server = app.listen(PORT, '127.0.0.1');
server.keepAliveTimeout = 75000;
const stop = () => {
  server.close();
  server.closeIdleConnections();
  const until = Date.now() + 15000;
  setInterval(() => { if (depth === 0 || Date.now() > until) process.exit(0); }, 50);
};
process.once('SIGTERM', stop);
process.once('SIGINT', stop);
