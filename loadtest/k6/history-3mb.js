// History of 3 MB: what a business said before it joined, in webhooks as large as Meta's largest, beside its mix.
//
// Shows that a webhook of thousands of messages of users of all regions is cut right, and that small ones do not
// wait for it. Promised: as for `steady`, for all together. RATE counts the histories; BESIDE the others; BYTES is
// how long a history is.
//
//   k6 run -e TARGET=http://127.0.0.1:8443/webhook -e SECRET=... -e RATE=1 -e BESIDE=100 -e SECONDS=60 loadtest/k6/history-3mb.js

import exec from 'k6/execution';
import { history, webhook } from './lib/bodies.js';
import { COMMON, promised, rate, seconds, send, steadily } from './lib/sending.js';

const BYTES = Number(__ENV.BYTES || 3000000);
const BESIDE = Number(__ENV.BESIDE || 100);

export const options = {
  ...COMMON,
  scenarios: {
    histories: { ...steadily(rate(1), seconds(60)), exec: 'histories' },
    beside: steadily(BESIDE, seconds(60)),
  },
  thresholds: promised((rate(1) + BESIDE) * seconds(60)),
};

export function histories() {
  send(history(exec.scenario.iterationInTest, BYTES));
}

export default function () {
  send(webhook(exec.scenario.iterationInTest));
}
