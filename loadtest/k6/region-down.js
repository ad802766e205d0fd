// Region down: Meta's mix, while one region refuses what comes and breaks connections, and later is back.
//
// Shows that the provider does not feel it: no answer is later or other than on any day. Promised: as for `steady`.
// Run by `penstock-loadtest k6`, which takes a region down for a third of the time and says whether the others felt
// it and whether that region got everything afterwards; run alone, take one down yourself.
//
//   k6 run -e TARGET=http://127.0.0.1:8443/webhook -e SECRET=... -e RATE=300 -e SECONDS=60 loadtest/k6/region-down.js

import exec from 'k6/execution';
import { webhook } from './lib/bodies.js';
import { COMMON, promised, rate, seconds, send, steadily } from './lib/sending.js';

export const options = {
  ...COMMON,
  scenarios: { outage: steadily(rate(300), seconds(60)) },
  thresholds: promised(rate(300) * seconds(60)),
};

export default function () {
  send(webhook(exec.scenario.iterationInTest));
}
