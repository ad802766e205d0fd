// Steady: Meta's mix at a constant rate, with one webhook in a hundred repeated and one in two hundred forged.
//
// Shows what an ordinary day looks like. Promised: half of the answers within 250 ms and less than 1 % after more
// than 1 s, as Meta asks; each is the right one, and all that was due was sent, none dropped for want of answers.
//
//   k6 run -e TARGET=http://127.0.0.1:8443/webhook -e SECRET=... -e RATE=300 -e SECONDS=60 loadtest/k6/steady.js

import exec from 'k6/execution';
import { chances, forgery, webhook } from './lib/bodies.js';
import { COMMON, promised, rate, seconds, send, sendForgery, sign, steadily } from './lib/sending.js';

export const options = {
  ...COMMON,
  scenarios: { steady: steadily(rate(300), seconds(60)) },
  thresholds: promised(rate(300) * seconds(60)),
};

export default function () {
  const number = exec.scenario.iterationInTest;
  const chance = chances(number)(1000);
  if (chance < 5) {
    const { body } = forgery(number);
    sendForgery(body, sign(body, 'a guess'));
  } else {
    send(webhook(number), { times: chance < 15 ? 2 : 1 });
  }
}
