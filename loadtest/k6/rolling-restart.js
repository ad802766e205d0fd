// Rolling restart: Meta's mix, while the gateway is stopped in good order and started again, a few times.
//
// The data folder belongs to one process, so between two there is none: connections are refused, and what gets no
// answer is sent again, as a provider does. Promised: every webhook is answered 200 in the end; no other answer is
// given but 503; answers that are given come within Meta's times; and nothing that was answered is lost or comes
// twice. Not promised, with one gateway: that every try is answered. Refused ones are those of the time between two;
// cut off ones had been sent on a connection just when it was closed, which HTTP/1.1 cannot tell from an idle one.
//
// Run by `penstock-loadtest k6`, which restarts the gateway and says how long it was away and how many tries were
// refused and cut off; run alone, restart it yourself.
//
//   k6 run -e TARGET=http://127.0.0.1:8443/webhook -e SECRET=... -e RATE=100 -e SECONDS=60 loadtest/k6/rolling-restart.js

import { sleep } from 'k6';
import exec from 'k6/execution';
import { webhook } from './lib/bodies.js';
import { COMMON, promised, rate, seconds, sendUntilTaken, steadily } from './lib/sending.js';

// Most tries of a webhook: a provider's go on for days, a test's for half a minute.
const TRIES = 60;

// Tries may fail.
const { http_req_failed, ...thresholds } = promised(rate(100) * seconds(60));

export const options = {
  ...COMMON,
  // One that waits for its next try keeps its VU: enough for those of three seconds.
  scenarios: { restarts: steadily(rate(100), seconds(60), 3) },
  thresholds,
};

export default function () {
  // Not all at the same moment.
  sendUntilTaken(webhook(exec.scenario.iterationInTest), TRIES, () => sleep(0.3 + 0.4 * Math.random()));
}
