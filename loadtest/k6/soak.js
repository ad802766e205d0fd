// Soak: Meta's mix with repeats and forgeries, for as long as one has.
//
// Shows what only time does: memory, files or answers that grow. Promised: as for `steady`. Run by
// `penstock-loadtest k6`, which also looks at the gateway's memory; run alone, look at that yourself.
//
//   k6 run -e TARGET=http://127.0.0.1:8443/webhook -e SECRET=... -e RATE=300 -e SECONDS=7200 loadtest/k6/soak.js

import { COMMON, promised, rate, seconds, steadily } from './lib/sending.js';

export { default } from './steady.js';

// In hours a virtual machine stands still for some seconds: those are answers that are late, and the load goes on.
const WAIT = 3;

export const options = {
  ...COMMON,
  scenarios: { soak: steadily(rate(300), seconds(7200), WAIT) },
  thresholds: promised(rate(300) * seconds(7200)),
};
