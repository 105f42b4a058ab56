// Calls the API for as long as it runs, with the function that docs/consumers.md shows.
import { setTimeout } from "node:timers/promises";

import { companies } from "./companies.mjs";

for (;;) {
  await companies();
  await setTimeout(200);
}
