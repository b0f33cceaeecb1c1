// A foreign client as a process of its own: its program gets a URL and prints, one JSON object per line, everything the client shows it.
//
// A line is {"open":true}, {"error":"..."} or {"type":...,"id":...,"data":...}. The programs know nothing of the scenarios.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { until } from './deadline.mjs';

const running = new Set();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));

export class Reader {
  constructor(command, url) {
    Object.assign(this, { events: [], errors: [], exit: null, stderr: '' });
    this.child = spawn(command[0], [...command.slice(1), url], { stdio: ['ignore', 'pipe', 'pipe'] });
    running.add(this.child);
    this.child.on('error', (error) => (this.exit = String(error)));
    this.child.on('exit', (code, signal) => {
      running.delete(this.child);
      this.exit = `ended with ${signal ?? code}`;
    });
    this.child.stderr.on('data', (text) => (this.stderr = (this.stderr + text).slice(-2000)));
    createInterface({ input: this.child.stdout }).on('line', (text) => {
      const line = JSON.parse(text);
      if (line.error !== undefined) this.errors.push(line.error);
      else if (line.open === undefined) this.events.push(line);
    });
  }

  /** Waits until the client has shown at least `count` events. */
  async received(count) {
    await until(
      `the client shows ${count} events`,
      () => {
        if (this.exit) throw new Error(`the client's program ${this.exit} after ${this.events.length} events: ${this.trouble()}`);
        return this.events.length >= count;
      },
      { ms: 40_000, seen: () => `${this.events.length} so far, the last ${JSON.stringify(this.events.at(-1))}; ${this.trouble()}` },
    );
  }

  trouble() {
    return `errors: ${JSON.stringify(this.errors.slice(-3))} ${this.exit ?? ''} ${this.stderr}`;
  }

  stop() {
    this.child.kill('SIGKILL');
  }
}
