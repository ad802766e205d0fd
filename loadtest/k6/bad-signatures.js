// Bad signatures: half of the posts are not genuine, in seven ways.
//
// Shows that every one of them is answered 401 and reaches no region, and that the genuine ones beside them do not
// feel it. Promised: as for `steady`, for both kinds of answers together.
//
//   k6 run -e TARGET=http://127.0.0.1:8443/webhook -e SECRET=... -e RATE=300 -e SECONDS=60 loadtest/k6/bad-signatures.js

import crypto from 'k6/crypto';
import exec from 'k6/execution';
import { forgery, webhook } from './lib/bodies.js';
import { COMMON, promised, rate, seconds, send, sendForgery, sign, steadily } from './lib/sending.js';

export const options = {
  ...COMMON,
  scenarios: { forgers: steadily(rate(300), seconds(60)) },
  thresholds: promised(rate(300) * seconds(60)),
};

// What stands in X-Hub-Signature-256 of a body.
const WRONG = [
  (body) => sign(body, 'a guess'),
  // Left out.
  () => undefined,
  // A genuine one, of a body that was changed on its way.
  (body) => sign(body.replace('215900000', '215900001')),
  // The header of old, with the name of its hash.
  (body) => `sha1=${crypto.hmac('sha1', __ENV.SECRET, body, 'hex')}`,
  // The beginning of the right one.
  (body) => sign(body).slice(0, -2),
  // No hexadecimal digits.
  (body) => sign(body).replace(/[0-9]/g, 'x'),
  // The right one without its name.
  (body) => sign(body).slice('sha256='.length),
];

export default function () {
  const number = exec.scenario.iterationInTest;
  if (number % 2 === 0) {
    send(webhook(number));
  } else {
    const { body } = forgery(number);
    sendForgery(body, WRONG[((number - 1) / 2) % WRONG.length](body));
  }
}
