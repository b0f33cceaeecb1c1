// Runs every client through every scenario and prints the table. Exit code 1 if anything failed.
//
// Arguments are words: a case runs if every word occurs in "client scenario", so that one can be run alone.
import { availableParallelism } from 'node:os';
import { BROWSER_ONLY } from '../browser/cases.mjs';
import { Chromium } from '../browser/chromium.mjs';
import { mercureCases } from '../mercure/cases.mjs';
import { CLIENTS } from './clients.mjs';
import * as scenarios from './scenarios.mjs';

const words = process.argv.slice(2);
const chromium = new Chromium();
const cases = [
  ...mercureCases(chromium),
  ...Object.entries(BROWSER_ONLY).map(([scenario, play]) => ({ client: chromium.name, scenario, run: () => play(chromium) })),
  ...[chromium, ...CLIENTS].flatMap((client) =>
    ['ordered', 'cuts', 'rotation', ...(client.primed ? ['firstEvent'] : [])].map((scenario) => ({
      client: client.name,
      scenario,
      run: () => scenarios[scenario](client),
    })),
  ),
].filter(({ client, scenario }) => words.every((word) => `${client} ${scenario}`.includes(word)));

const waiting = [...cases];
async function work() {
  for (let next = waiting.shift(); next; next = waiting.shift()) {
    const start = Date.now();
    try {
      next.figures = await next.run();
      next.passed = true;
    } catch (error) {
      next.figures = error.message.split('\n')[0];
      next.details = error.stack;
      next.passed = false;
    }
    next.seconds = ((Date.now() - start) / 1000).toFixed(1);
    process.stderr.write(`${next.passed ? 'ok  ' : 'FAIL'} ${next.client}: ${next.scenario} (${next.seconds} s)\n`);
  }
}
// Most of a case is waiting for heartbeats and reconnects, so a few share a core.
await Promise.all(Array.from({ length: 2 * availableParallelism() }, work));
await chromium.close();

const width = (key) => Math.max(...cases.map((row) => row[key].length), key.length);
const [clients, names] = [width('client'), width('scenario')];
const line = (client, scenario, result, seconds, figures) =>
  console.log(`${client.padEnd(clients)} | ${scenario.padEnd(names)} | ${result.padEnd(6)} | ${seconds.padStart(7)} | ${figures}`);
line('client', 'scenario', 'result', 'seconds', 'figures');
for (const { client, scenario, passed, seconds, figures } of cases) line(client, scenario, passed ? 'passed' : 'FAILED', seconds, figures);
const failed = cases.filter((row) => !row.passed);
for (const { client, scenario, details } of failed) console.log(`\n--- ${client}: ${scenario}\n${details}`);
console.log(`\n${cases.length - failed.length} passed, ${failed.length} failed`);
process.exit(failed.length > 0 || cases.length === 0 ? 1 : 0);
