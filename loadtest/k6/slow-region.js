// Slow region: Meta's mix, while one region takes a second for every answer.
//
// A region that is slow holds connections and room that one that is down gives back. Shows that neither the
// provider nor the other regions wait for it. Promised: as for `steady`. Run by `penstock-loadtest k6`, which slows
// a region down for a third of the time and looks at the others' deliveries; run alone, slow one down yourself.
//
//   k6 run -e TARGET=http://127.0.0.1:8443/webhook -e SECRET=... -e RATE=300 -e SECONDS=60 loadtest/k6/slow-region.js

import { COMMON, promised, rate, seconds, steadily } from './lib/sending.js';

export { default } from './region-down.js';

export const options = {
  ...COMMON,
  scenarios: { slowness: steadily(rate(300), seconds(60)) },
  thresholds: promised(rate(300) * seconds(60)),
};
