// Batch of 1,000: webhooks with the statuses of 1,000 users each, so of all regions, beside Meta's mix.
//
// 1,000 is the most that Meta puts into one. Shows that each region gets all of its own users' events and none of
// another's, and that small webhooks do not wait for big ones. Promised: as for `steady`, for all together. RATE
// counts the batches; BESIDE the others.
//
//   k6 run -e TARGET=http://127.0.0.1:8443/webhook -e SECRET=... -e RATE=3 -e BESIDE=100 -e SECONDS=60 loadtest/k6/batch-1000.js

import exec from 'k6/execution';
import { batch, webhook } from './lib/bodies.js';
import { COMMON, promised, rate, seconds, send, steadily } from './lib/sending.js';

const BESIDE = Number(__ENV.BESIDE || 100);

export const options = {
  ...COMMON,
  scenarios: {
    batches: { ...steadily(rate(3), seconds(60)), exec: 'batches' },
    beside: steadily(BESIDE, seconds(60)),
  },
  thresholds: promised((rate(3) + BESIDE) * seconds(60)),
};

export function batches() {
  send(batch(exec.scenario.iterationInTest, 1000));
}

export default function () {
  send(webhook(exec.scenario.iterationInTest));
}
