// Posting as Meta does, what is promised of the answers, and k6's side of the books.
//
// Every script takes these from the environment (-e NAME=...):
//   TARGET   URL of the source            SECRET   of the source; needed
//   RATE     webhooks a second            SECONDS  how long
//   SEED     of the webhooks              USERS    who write and are written to
//   REGIONS  phone prefixes of each region, the default one first, such as [["91","1"],["55"]]: used to count what
//            each must receive, and of no consequence where nobody compares

import { check } from 'k6';
import crypto from 'k6/crypto';
import http from 'k6/http';
import { Counter, Rate, Trend } from 'k6/metrics';
import { REGIONS } from './bodies.js';

const TARGET = __ENV.TARGET || 'http://127.0.0.1:8443/webhook';
const SECRET = __ENV.SECRET;

if (!SECRET) {
  throw new Error('SECRET is not set: expected the secret of the source at TARGET (-e SECRET=...)');
}

export function rate(usual) {
  return Number(__ENV.RATE || usual);
}

export function seconds(usual) {
  return Number(__ENV.SECONDS || usual);
}

// Enough VUs for answers that all take a second, whatever comes: k6 drops a webhook for which it has none at hand.
export function vus(perSecond, wait = 1) {
  const preAllocatedVUs = Math.max(16, Math.ceil(perSecond * wait));
  return { preAllocatedVUs, maxVUs: 2 * preAllocatedVUs };
}

// A constant rate of arrivals, whatever the answers do.
export function steadily(perSecond, duration, wait) {
  return {
    executor: 'constant-arrival-rate',
    rate: perSecond,
    timeUnit: '1s',
    duration: `${duration}s`,
    ...vus(perSecond, wait),
  };
}

// What Meta asks of whoever it calls, and that the load was what it should be: of `due` webhooks all were sent, and
// answered as they must be. k6 counts as dropped only what it had no VU for: where it has too little CPU it just falls
// behind, and so what it did is counted, too.
export function promised(due) {
  return {
    penstock_answer: ['med<=250'],
    penstock_late: ['rate<0.01'],
    http_req_failed: ['rate==0'],
    checks: ['rate==1'],
    dropped_iterations: ['count==0'],
    iterations: [`count>=${Math.floor(due * 0.99)}`],
  };
}

// What all scripts have in common of k6's options.
export const COMMON = {
  summaryTrendStats: ['med', 'p(99)', 'max'],
  // Answers have no body worth keeping.
  discardResponseBodies: true,
};

// From wanting to send until the answer is there, a new connection included; and whether that took more than 1 s.
const answer = new Trend('penstock_answer', true);
const late = new Rate('penstock_late');
// Posts answered 200, of those the repeats, forgeries answered 401, and tries that got no answer; of these those that
// had a connection, or were on the way to one: it was broken or took longer than Meta's patience.
const accepted = new Counter('penstock_accepted');
const repeated = new Counter('penstock_repeated');
const forged = new Counter('penstock_forged');
const unanswered = new Counter('penstock_unanswered');
const cut = new Counter('penstock_cut');
// Per region: events of accepted webhooks and their digests, each counted once; those that went out again in a
// repeat; and those of webhooks without an answer in the end, of which nobody can say whether they arrive.
const perRegion = (name) => REGIONS.map((_, region) => new Counter(`penstock_${name}_region_${region}`));
const events = perRegion('events');
const digests = perRegion('digest');
const eventsAgain = perRegion('events_again');
const eventsOpen = perRegion('events_open');

export function sign(body, secret = SECRET) {
  return `sha256=${crypto.hmac('sha256', secret, body, 'hex')}`;
}

function request(body, signature, expected) {
  const headers = { 'Content-Type': 'application/json', 'User-Agent': 'facebookexternalua' };
  if (signature !== undefined) {
    headers['X-Hub-Signature-256'] = signature;
  }
  // Meta's patience.
  return { method: 'POST', url: TARGET, body, params: { headers, responseCallback: http.expectedStatuses(expected), timeout: '20s' } };
}

// k6's code for a connection that was refused, so that nothing was sent.
const REFUSED = 1212;

function note(response) {
  if (response.status === 0) {
    unanswered.add(1);
    cut.add(response.error_code === REFUSED ? 0 : 1);
    return;
  }
  const took = response.timings.blocked + response.timings.duration;
  answer.add(took);
  late.add(took > 1000);
}

function notePerRegion(counters, tally, what) {
  tally.forEach((due, region) => {
    if (due.events > 0) {
      counters[region].add(due[what]);
    }
  });
}

// Counts the answers to one webhook. Those of a repeat of what another iteration sends are all `again`.
function book(responses, tally, again) {
  const taken = responses.filter((response) => response.status === 200).length;
  accepted.add(taken);
  const repeats = again ? taken : Math.max(0, taken - 1);
  repeated.add(repeats);
  for (let repeat = 0; repeat < repeats; repeat += 1) {
    notePerRegion(eventsAgain, tally, 'events');
  }
  if (taken > repeats) {
    notePerRegion(events, tally, 'events');
    notePerRegion(digests, tally, 'digest');
  } else if (!again && responses.some((response) => response.status === 0)) {
    notePerRegion(eventsOpen, tally, 'events');
  }
  return taken;
}

const TAKEN = { 'answered 200': (response) => response.status === 200 };

// Posts a genuine webhook, `times` in a row.
export function send({ body, tally }, { times = 1, again = false } = {}) {
  const one = request(body, sign(body), 200);
  const responses = [];
  for (let time = 0; time < times; time += 1) {
    const response = http.post(one.url, one.body, one.params);
    note(response);
    check(response, TAKEN);
    responses.push(response);
  }
  book(responses, tally, again);
}

// The same webhook on two connections at the same time.
export function sendTwiceAtOnce({ body, tally }) {
  const one = request(body, sign(body), 200);
  const responses = http.batch([one, one]);
  responses.forEach((response) => {
    note(response);
    check(response, TAKEN);
  });
  book(responses, tally, false);
}

// Posts until there is an answer 200, as a provider does: again after each `wait()` seconds, `most` times in all.
export function sendUntilTaken({ body, tally }, most, wait) {
  const one = request(body, sign(body), 200);
  const responses = [];
  for (let time = 0; time < most; time += 1) {
    const response = http.post(one.url, one.body, one.params);
    note(response);
    responses.push(response);
    if (response.status === 200) {
      break;
    }
    // No answer, or one that says "later": all else would never become a 200.
    check(response, { 'no answer but 200 and 503': ({ status }) => status === 0 || status === 503 });
    wait();
  }
  check(book(responses, tally, false), { 'answered 200 in the end': (taken) => taken === 1 });
}

// Posts what is not genuine.
export function sendForgery(body, signature) {
  const one = request(body, signature, 401);
  const response = http.post(one.url, one.body, one.params);
  note(response);
  if (check(response, { 'answered 401': ({ status }) => status === 401 })) {
    forged.add(1);
  }
}
