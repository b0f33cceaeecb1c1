// Chromium with its native EventSource, as one more client: a page that subscribes and keeps what it is shown.
//
// Names under `.test` lead to this machine, so that a page can be of an origin that is not a loopback address.
import { chromium } from 'playwright-core';
import { until } from '../harness/deadline.mjs';

const ARGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--host-resolver-rules=MAP *.test 127.0.0.1',
];

export class Chromium {
  name = 'Chromium EventSource';
  query = '';
  primed = true;
  #browser = null;

  async #newPage() {
    this.#browser ??= chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true, args: ARGS });
    const context = await (await this.#browser).newContext();
    return context.newPage();
  }

  /** A page at an address, in a browser profile of its own. */
  async page(url) {
    const page = await this.#newPage();
    await page.goto(url);
    return new Page(page);
  }

  /** Subscribes from a page of the hub's own origin, one that does nothing by itself. */
  async subscribe(url) {
    const page = await this.page(`${new URL(url).origin}/health`);
    await page.subscribe(url);
    return page;
  }

  async close() {
    await (await this.#browser)?.close();
  }
}

/** A page with at most one subscription, whose callbacks are kept in the order in which they were called. */
export class Page {
  /** All callbacks: {open}, {error: readyState} or {type, id, data}. */
  calls = [];

  constructor(page) {
    this.page = page;
  }

  async subscribe(url, { types = ['message', 'tidings.gap'], withCredentials = false } = {}) {
    await this.page.evaluate(
      ({ url, types, withCredentials }) => {
        const source = new EventSource(url, { withCredentials });
        window.calls = [];
        source.addEventListener('open', () => window.calls.push({ open: true }));
        source.addEventListener('error', () => window.calls.push({ error: source.readyState }));
        for (const type of types) {
          source.addEventListener(type, ({ type, lastEventId, data }) => window.calls.push({ type, id: lastEventId, data }));
        }
      },
      { url, types, withCredentials },
    );
  }

  get events() {
    return this.calls.filter((call) => call.type !== undefined);
  }

  async received(count) {
    await this.shows(`${count} events`, () => this.events.length >= count);
  }

  /** Waits until what the page was called with satisfies a condition. */
  async shows(what, condition) {
    await until(
      `the page shows ${what}`,
      async () => {
        // Only what is new crosses over: ten thousand events are not copied again at every look.
        this.calls.push(...(await this.page.evaluate((known) => window.calls.slice(known), this.calls.length)));
        return condition();
      },
      { ms: 40_000, seen: () => this.trouble() },
    );
  }

  trouble() {
    return `${this.events.length} events so far, the last calls ${JSON.stringify(this.calls.slice(-3))}`;
  }

  async stop() {
    await this.page.context().close();
  }
}
