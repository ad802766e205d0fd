// Retry storm: of ten posts three are repeats, as after an outage in which the provider missed its answers.
//
// A third of the repeats follow the answer, a third go out together with the first on another connection, and a
// third repeat a webhook of some time ago. Shows that repeats are answered like all else and dropped: the regions
// get each event once. Promised: as for `steady`. RATE counts webhooks, so there are 10/7 as many posts.
//
//   k6 run -e TARGET=http://127.0.0.1:8443/webhook -e SECRET=... -e RATE=200 -e SECONDS=60 loadtest/k6/retry-storm.js

import exec from 'k6/execution';
import { chances, webhook } from './lib/bodies.js';
import { COMMON, promised, rate, seconds, send, sendTwiceAtOnce, steadily } from './lib/sending.js';

export const options = {
  ...COMMON,
  scenarios: { storm: steadily(rate(200), seconds(60)) },
  thresholds: promised(rate(200) * seconds(60)),
};

export default function () {
  const number = exec.scenario.iterationInTest;
  const random = chances(number);
  switch (random(7)) {
    case 0:
      send(webhook(number), { times: 2 });
      break;
    case 1:
      sendTwiceAtOnce(webhook(number));
      break;
    case 2:
      send(webhook(number));
      send(webhook(Math.max(0, number - 1 - random(3000))), { again: true });
      break;
    default:
      send(webhook(number));
  }
}
