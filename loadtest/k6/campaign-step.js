// Campaign step: nothing, then within a second all that one business number can cause, and so on to the end.
//
// 1,000 messages a second, the most that Meta lets one number send, come back as some 3,300 webhooks a second.
// Shows that a load that comes at once needs no warming up. Promised: as for `steady`, the first second included.
// RATE is the height of the step; a machine that runs k6, gateway and regions on two CPUs may carry less.
//
//   k6 run -e TARGET=http://127.0.0.1:8443/webhook -e SECRET=... -e RATE=3300 -e SECONDS=60 loadtest/k6/campaign-step.js

import exec from 'k6/execution';
import { webhook } from './lib/bodies.js';
import { COMMON, promised, rate, seconds, send, vus } from './lib/sending.js';

const STEP = rate(3300);

export const options = {
  ...COMMON,
  scenarios: {
    campaign: {
      executor: 'ramping-arrival-rate',
      startRate: 0,
      timeUnit: '1s',
      stages: [
        { target: STEP, duration: '1s' },
        { target: STEP, duration: `${Math.max(1, seconds(60) - 1)}s` },
      ],
      // Half a megabyte each, so 2,000 at most.
      ...vus(STEP, Math.min(1, 2000 / STEP)),
    },
  },
  // The first second is a ramp.
  thresholds: promised(STEP * (Math.max(2, seconds(60)) - 0.5)),
};

export default function () {
  send(webhook(exec.scenario.iterationInTest));
}
