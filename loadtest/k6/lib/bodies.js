// Webhooks as Meta writes them, and what each region must receive of one.
//
// 88 % statuses (sent, delivered, read of one id), 11.9 % messages, 0.1 % of the account; 1 % of the webhooks hold
// 2 to 10 events of several users, so of several regions. Everything comes from SEED and a number: the same seed
// makes the same webhooks, and whoever counts arrivals reads seed, region and number back from the ids.

import crypto from 'k6/crypto';

const SEED = Number(__ENV.SEED || 1);
const USERS = Number(__ENV.USERS || 20000);
// Phone prefixes of each region, the first is the default: [["91","1"],["55"]].
export const REGIONS = JSON.parse(__ENV.REGIONS || '[["91","1","49"],["55","62","44"]]');

const STATUSES = ['sent', 'delivered', 'read'];
const METADATA = { display_phone_number: '15550783100', phone_number_id: '106500000000101' };

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

// What a script decides about a number, apart from the webhook's own content.
export function chances(number) {
  return randomFrom(SEED ^ Math.imul(number + 1, 0x9e3779b1));
}

// A user is always the same phone at the same number, and so one conversation.
function user(random) {
  const index = random(USERS);
  const region = index % REGIONS.length;
  const prefixes = REGIONS[region];
  const prefix = prefixes[Math.floor(index / REGIONS.length) % prefixes.length];
  return { index, region, phone: `${prefix}7${String(index).padStart(9, '0')}` };
}

// All that is not ASCII in what users here say and are called. One pass for each is far cheaper than a pattern's callback.
const ESCAPED = [['\u00fc', '\\u00fc'], ['\u00df', '\\u00df'], ['\ud83d\ude00', '\\ud83d\\ude00']];

// ASCII only, as Meta writes it.
function json(value) {
  let text = JSON.stringify(value).split('/').join('\\/');
  ESCAPED.forEach(([character, escaped]) => {
    text = text.includes(character) ? text.split(character).join(escaped) : text;
  });
  return text;
}

// FNV-1a, 24 bits of it: the sum over some hundred million names is still exact in a double.
function digest(name) {
  let hash = 0x811c9dc5;
  for (let at = 0; at < name.length; at += 1) {
    hash = Math.imul(hash ^ name.charCodeAt(at), 0x01000193);
  }
  return (hash >>> 0) & 0xffffff;
}

// What each region must get of one webhook: how many events, and the sum of their names' digests.
class Tally {
  constructor() {
    this.regions = REGIONS.map(() => ({ events: 0, digest: 0 }));
  }

  // Notes an event and returns its id. `name` is unique within the run.
  wamid(region, name, state = '') {
    this.regions[region].events += 1;
    this.regions[region].digest += digest(`${name}/${state}`);
    return `wamid.HBgMOTE5ODc2NTAwMDAxFQIAERgS.${SEED}.${region}.${name}`;
  }
}

function whole(account, value, field) {
  return json({ object: 'whatsapp_business_account', entry: [{ id: account, changes: [{ value, field }] }] });
}

function message(tally, who, name, timestamp, text) {
  return { from: who.phone, id: tally.wamid(who.region, name), timestamp, text: { body: text }, type: 'text' };
}

function status(tally, who, name, state, timestamp) {
  return {
    id: tally.wamid(who.region, name, state),
    status: state,
    timestamp,
    recipient_id: who.phone,
    recipient_user_id: `XX.${String(who.index).padStart(16, '0')}`,
    conversation: { id: crypto.md5(who.phone, 'hex'), origin: { type: 'utility' } },
    pricing: { billable: true, pricing_model: 'PMP', type: 'regular', category: 'utility' },
  };
}

// `size` elements of one kind in one webhook. `mark` stands before every name.
function elements(random, kind, number, size, mark) {
  const tally = new Tally();
  const timestamp = String(1790000000 + Math.floor(number / 100));
  const account = `2159000000${String(random(50)).padStart(5, '0')}`;
  const value = { messaging_product: 'whatsapp', metadata: METADATA };
  if (kind === 'message') {
    const known = {};
    value.messages = [];
    for (let place = 0; place < size; place += 1) {
      const who = user(random);
      known[who.phone] = { profile: { name: `J\u00fcrgen ${who.index}` }, wa_id: who.phone };
      const text = 'Gr\u00fc\u00dfe \ud83d\ude00 / hello '.repeat(1 + random(12));
      value.messages.push(message(tally, who, `${mark}m${number}.${place}`, timestamp, text));
    }
    value.contacts = Object.values(known);
  } else {
    // Three numbers in a row are the life of one message, as far as they are statuses.
    const life = Math.floor(number / 3);
    value.statuses = [];
    for (let place = 0; place < size; place += 1) {
      const who = user(randomFrom(SEED + life * 31 + place));
      value.statuses.push(status(tally, who, `${mark}s${life}.${place}`, STATUSES[number % 3], timestamp));
    }
  }
  return { body: whole(account, value, 'messages'), tally: tally.regions };
}

// The webhook of a number, in Meta's mix. With a `mark` it shares no id with the one without.
export function webhook(number, mark = '') {
  const random = randomFrom(SEED * 7919 + number * 104729);
  const kind = random(1000);
  if (kind === 0) {
    const tally = new Tally();
    const info = { waba_id: tally.wamid(0, `${mark}a${number}`), owner_business_id: '2329417887457253' };
    const value = { event: 'PARTNER_ADDED', waba_info: info };
    return { body: whole('215900000000001', value, 'account_update'), tally: tally.regions };
  }
  const size = random(100) === 0 ? 2 + random(9) : 1;
  return elements(random, kind < 120 ? 'message' : 'status', number, size, mark);
}

// For what no signature makes genuine: whoever sees one of these ids arrive has found a fault.
export function forgery(number) {
  return webhook(number, 'f');
}

// Statuses of `size` users in one webhook, as Meta sends up to 1,000.
export function batch(number, size) {
  return elements(randomFrom(SEED + number), 'status', number, size, 'b');
}

// A business's chats of before, a thread for each user, in a little less than so many bytes.
export function history(number, bytes) {
  const random = randomFrom(SEED * 15485863 + number);
  const tally = new Tally();
  const text = 'What was said long ago / and is told once more. '.repeat(16);
  const THREADS = 50;
  // Everything but the text is about 173 bytes; each "/" has a backslash in front.
  const each = Math.floor(bytes / THREADS / (text.length + 16 + 173));
  const threads = [];
  for (let thread = 0; thread < THREADS; thread += 1) {
    const who = user(random);
    const messages = [];
    for (let place = 0; place < each; place += 1) {
      const timestamp = String(1789000000 + place);
      const told = message(tally, who, `h${number}.${thread}.${place}`, timestamp, text);
      told.history_context = { status: 'READ' };
      messages.push(told);
    }
    threads.push({ id: who.phone, context: { wa_id: who.phone }, messages });
  }
  const chunk = { metadata: { phase: 0, chunk_order: 1, progress: 55 }, threads };
  const value = { messaging_product: 'whatsapp', metadata: METADATA, history: [chunk] };
  return { body: whole('215900000000001', value, 'history'), tally: tally.regions };
}
