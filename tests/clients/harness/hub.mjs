// The binary under test as a process: started on a free port, killed or stopped, published to over HTTP.
//
// It knows the one line that the hub prints when it listens (N-42) and the publish interface (N-1...N-4), nothing of subscribing.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { check } from './deadline.mjs';

/** Settings under which heartbeats and reconnects do not make a test wait for long. */
export const QUICK = ['--heartbeat', '1s', '--retry', '200ms-500ms'];

const running = new Set();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));

/** Starts the hub with the memory store and the given further flags and variables; `port` 0 takes a free one. */
export async function startHub(flags = [], port = 0, variables = {}) {
  const bin = process.env.TIDINGS_BIN;
  check(bin, 'TIDINGS_BIN must name the binary to test');
  const args = ['serve', '--listen', `127.0.0.1:${port}`, '--store', 'memory', ...flags];
  // Every TIDINGS_* variable is a setting (N-41): the hub has those of the test and no others.
  const env = { ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('TIDINGS_'))), ...variables };
  const child = spawn(bin, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  running.add(child);
  let log = '';
  child.stderr.on('data', (text) => (log = (log + text).slice(-4000)));
  const exited = new Promise((resolve) =>
    child.on('close', () => {
      running.delete(child);
      resolve();
    }),
  );
  const listening = new Promise((resolve, reject) => {
    child.on('error', reject);
    exited.then(() => reject(new Error(`the hub ended before it listened: ${log}`)));
    setTimeout(() => reject(new Error(`the hub did not say within 10 s where it listens: ${log}`)), 10_000).unref();
    createInterface({ input: child.stdout }).on('line', (line) => {
      const bound = /listening on http:\/\/127\.0\.0\.1:(\d+)/.exec(line);
      if (bound) resolve(Number(bound[1]));
    });
  });
  listening.catch(() => child.kill('SIGKILL'));
  return new Hub(child, await listening, exited);
}

class Hub {
  constructor(child, port, exited) {
    Object.assign(this, { child, port, exited, url: `http://127.0.0.1:${port}` });
  }

  /** Ends the process at once, with no chance to say goodbye to anybody. */
  async kill() {
    this.child.kill('SIGKILL');
    await this.exited;
  }

  /** Publishes the events in one request and answers their ids: an array (N-2), or one per line (N-3). */
  async publish(events, { lines = false } = {}) {
    const body = lines ? events.map((event) => `${JSON.stringify(event)}\n`).join('') : JSON.stringify(events);
    const type = lines ? 'application/x-ndjson' : 'application/json';
    const answer = await fetch(`${this.url}/publish`, { method: 'POST', headers: { 'content-type': type }, body });
    const text = await answer.text();
    check(answer.status === 200, `publishing ${events.length} events answered ${answer.status}: ${text}`);
    const ids = text.split('\n').slice(0, -1);
    check(ids.length === events.length, `publishing ${events.length} events answered ${ids.length} ids`);
    return ids;
  }
}

/** A numbered sequence of events on one topic, which remembers what was published and checks what was received. */
export class Sequence {
  constructor(topic) {
    Object.assign(this, { topic, ids: [] });
  }

  get length() {
    return this.ids.length;
  }

  /** The payload of an event: its number in a line of its own, then text that a careless decoder would spoil. */
  static data(number) {
    return `${number}\nline: two — é 🦀`;
  }

  async publish(hub, count, options) {
    const first = this.length + 1;
    const events = Array.from({ length: count }, (_, i) => ({ topic: this.topic, data: Sequence.data(first + i) }));
    this.ids.push(...(await hub.publish(events, options)));
  }

  /** Every event published so far was received exactly once, in order, and nothing else was: no phantom, no gap. */
  checkReceived(events) {
    for (const [i, event] of events.entries()) {
      const shown = `event ${i + 1} of ${events.length} is ${JSON.stringify(event)}`;
      check(event.type === 'message', `${shown}, of another type than published`);
      check(event.data === Sequence.data(i + 1), `${shown}, expected the data of number ${i + 1}`);
      check(event.id === undefined || event.id === this.ids[i], `${shown}, expected the id ${this.ids[i]}`);
    }
    check(events.length === this.length, `${events.length} events received of ${this.length} published`);
  }
}
