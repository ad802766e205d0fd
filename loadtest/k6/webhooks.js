// Webhooks as Meta sends them, signed, at a constant rate of arrivals.
//
// Run alone against any gateway, or by `penstock-loadtest k6`, which starts one with regions that count and
// compares at the end what was answered here with what arrived there.
//
//   k6 run -e TARGET=http://127.0.0.1:8443/webhook -e SECRET=... -e RATE=300 -e DURATION=30s webhooks.js
//
// 88 % statuses (sent, delivered, read of one id), 11.9 % messages, 0.1 % of the account; 1 % of the webhooks hold
// 2 to 10 events of several users, so of several regions. Beside them a share of exact repeats, as a provider
// sends them that has not seen its 200, and of forgeries, which must be answered 401.
// Everything comes from SEED and the number of the iteration: the same seed makes the same webhooks.

import { check } from 'k6';
import crypto from 'k6/crypto';
import exec from 'k6/execution';
import http from 'k6/http';
import { Counter } from 'k6/metrics';

const TARGET = __ENV.TARGET || 'http://127.0.0.1:8443/webhook';
const SECRET = __ENV.SECRET;
const RATE = Number(__ENV.RATE || 300);
const DURATION = __ENV.DURATION || '30s';
const P99_MS = Number(__ENV.P99_MS || 250); // Meta's own wish for the median.
const SEED = Number(__ENV.SEED || 1);
const USERS = Number(__ENV.USERS || 20000);
const REPEATED = Number(__ENV.REPEATED || 0.01);
const FORGED = Number(__ENV.FORGED || 0.005);
// Phone prefixes of each region, the first is the default: [["91","1"],["55"]].
const REGIONS = JSON.parse(__ENV.REGIONS || '[["91","1","49"],["55","62","44"]]');

if (!SECRET) {
  throw new Error('SECRET is not set: expected the secret of the source at TARGET (-e SECRET=...)');
}

export const options = {
  scenarios: {
    webhooks: {
      executor: 'constant-arrival-rate',
      rate: RATE,
      timeUnit: '1s',
      duration: DURATION,
      preAllocatedVUs: 32,
      maxVUs: 512,
    },
  },
  thresholds: {
    http_req_failed: ['rate==0'],
    checks: ['rate==1'],
    'http_req_duration{expected_response:true}': [`p(99)<${P99_MS}`],
  },
  summaryTrendStats: ['med', 'p(99)', 'max'],
  // Answers have no body worth keeping.
  discardResponseBodies: true,
};

// Genuine webhooks answered 200, repeats included; of those the repeats; forgeries answered 401.
const accepted = new Counter('penstock_accepted');
const repeated = new Counter('penstock_repeated');
const forged = new Counter('penstock_forged');
// Per region: events of accepted webhooks, each counted once, and those that went out again in a repeat.
const events = REGIONS.map((_, region) => new Counter(`penstock_events_region_${region}`));
const eventsAgain = REGIONS.map((_, region) => new Counter(`penstock_events_again_region_${region}`));

// Mulberry32: small, and its seed is all of its state.
function randomFrom(seed) {
  let state = seed >>> 0;
  return (bound) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return Math.floor((((z ^ (z >>> 14)) >>> 0) / 4294967296) * bound);
  };
}

// A user is always the same phone at the same number, and so one conversation.
function user(random) {
  const index = random(USERS);
  const region = index % REGIONS.length;
  const prefixes = REGIONS[region];
  const prefix = prefixes[Math.floor(index / REGIONS.length) % prefixes.length];
  return { index, region, phone: `${prefix}7${String(index).padStart(9, '0')}` };
}

// ASCII only, as Meta writes it.
function json(value) {
  const escaped = (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return JSON.stringify(value).replace(/\//g, '\\/').replace(/[\u007f-\uffff]/g, escaped);
}

// The run, the region and a number: whoever counts arrivals reads them back.
function wamid(region, number) {
  return `wamid.HBgMOTE5ODc2NTAwMDAxFQIAERgS.${SEED}.${region}.${number}`;
}

const STATUSES = ['sent', 'delivered', 'read'];

// One element: a status of a message that was sent, or a message.
function element(random, kind, number, place) {
  // Three iterations in a row are the life of one message, as far as they are statuses.
  const life = Math.floor(number / 3);
  const who = user(kind === 'message' ? random : randomFrom(SEED + life * 31 + place));
  const timestamp = String(1790000000 + Math.floor(number / 100));
  if (kind === 'message') {
    const text = 'Gr\u00fc\u00dfe \ud83d\ude00 / hello '.repeat(1 + random(12));
    const message = { from: who.phone, id: wamid(who.region, `m${number}.${place}`), timestamp, text: { body: text }, type: 'text' };
    return { who, message };
  }
  const status = {
    id: wamid(who.region, `s${life}.${place}`),
    status: STATUSES[number % 3],
    timestamp,
    recipient_id: who.phone,
    recipient_user_id: `XX.${String(who.index).padStart(16, '0')}`,
    conversation: { id: crypto.md5(who.phone, 'hex'), origin: { type: 'utility' } },
    pricing: { billable: true, pricing_model: 'PMP', type: 'regular', category: 'utility' },
  };
  return { who, status };
}

// The body, and how many of its events belong to each region.
function webhook(iteration) {
  const random = randomFrom(SEED * 7919 + iteration * 104729);
  const counts = REGIONS.map(() => 0);
  const account = `2159000000${String(random(50)).padStart(5, '0')}`;
  const kind = random(1000);
  if (kind === 0) {
    counts[0] = 1;
    const value = { event: 'PARTNER_ADDED', waba_info: { waba_id: wamid(0, `a${iteration}`), owner_business_id: '2329417887457253' } };
    const entry = { id: account, time: 1790000000, changes: [{ value, field: 'account_update' }] };
    return { body: json({ object: 'whatsapp_business_account', entry: [entry] }), counts };
  }
  const name = kind < 120 ? 'message' : 'status';
  const size = random(100) === 0 ? 2 + random(9) : 1;
  const parts = [];
  for (let place = 0; place < size; place += 1) {
    parts.push(element(random, name, iteration, place));
  }
  const value = {
    messaging_product: 'whatsapp',
    metadata: { display_phone_number: '15550783100', phone_number_id: '106500000000101' },
  };
  if (name === 'message') {
    const known = {};
    parts.forEach(({ who }) => {
      known[who.phone] = { profile: { name: `J\u00fcrgen ${who.index}` }, wa_id: who.phone };
    });
    value.contacts = Object.values(known);
    value.messages = parts.map((part) => part.message);
  } else {
    value.statuses = parts.map((part) => part.status);
  }
  parts.forEach(({ who }) => {
    counts[who.region] += 1;
  });
  const entry = { id: account, changes: [{ value, field: 'messages' }] };
  return { body: json({ object: 'whatsapp_business_account', entry: [entry] }), counts };
}

function post(body, signature, expected) {
  const params = {
    headers: {
      'Content-Type': 'application/json',
      'User-Agent': 'facebookexternalua',
      'X-Hub-Signature-256': `sha256=${signature}`,
    },
    responseCallback: http.expectedStatuses(expected),
    timeout: '20s', // Meta's patience.
  };
  const answer = http.post(TARGET, body, params);
  return check(answer, { [`answered ${expected}`]: (got) => got.status === expected });
}

export default function () {
  const iteration = exec.scenario.iterationInTest;
  const random = randomFrom(SEED ^ (iteration * 2654435761));
  const { body, counts } = webhook(iteration);
  const signature = crypto.hmac('sha256', SECRET, body, 'hex');

  const chance = random(1000000) / 1000000;
  if (chance < FORGED) {
    // Never genuine before: whatever of it arrives is a fault.
    const guess = crypto.hmac('sha256', 'a guess', body, 'hex');
    if (post(body, guess, 401)) {
      forged.add(1);
    }
    return;
  }
  if (!post(body, signature, 200)) {
    return;
  }
  accepted.add(1);
  counts.forEach((count, region) => events[region].add(count));
  if (chance < FORGED + REPEATED && post(body, signature, 200)) {
    accepted.add(1);
    repeated.add(1);
    counts.forEach((count, region) => eventsAgain[region].add(count));
  }
}
