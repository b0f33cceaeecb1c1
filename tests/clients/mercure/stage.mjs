// What the cases of the Mercure protocol share: a hub with a proxy before it and a topic of its own, ways to publish, readers, witnesses.
import { spawn } from 'node:child_process';
import { EventSource } from 'eventsource';
import { check, until } from '../harness/deadline.mjs';
import { Proxy } from '../harness/proxy.mjs';
import { accessToken, legacyToken, startMercureHub } from './hub.mjs';

/** Runs `play` with a hub and a topic of its own; `hub.mercure` leads straight to it, `hub.behind` through the proxy. */
export async function stage(directives, play) {
  const hub = await startMercureHub(directives);
  const proxy = await Proxy.start(hub.port);
  hub.behind = `${proxy.url}/.well-known/mercure`;
  try {
    return await play(hub, `https://clients.example/${Math.random().toString(36).slice(2)}`, proxy);
  } finally {
    proxy.close();
    await hub.kill();
  }
}

/** Starts a program; the lines of JSON that it prints. */
export function start(command) {
  const child = spawn(command[0], command.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] });
  const running = { lines: [], errors: '', code: undefined, kill: () => child.kill('SIGKILL') };
  let rest = '';
  child.stdout.on('data', (text) => {
    const parts = (rest + text).split('\n');
    rest = parts.pop();
    running.lines.push(...parts.map((line) => JSON.parse(line)));
  });
  child.stderr.on('data', (text) => (running.errors += text));
  child.on('error', (error) => (running.errors += error));
  child.on('close', (code) => (running.code = code ?? -1));
  return running;
}

/** Runs a program to its end, which must be a good one. */
export async function finished(command) {
  const running = start(command);
  await until(`${command[0]} ends`, () => running.code !== undefined, { ms: 60_000 });
  check(running.code === 0, `${command[0]} ended with ${running.code}: ${running.errors.slice(-1500)}`);
  return running.lines;
}

export const bearer = (token) => ({ Authorization: `Bearer ${token}` });
export const query = (fields) => new URLSearchParams(fields).toString();

/** npm `eventsource` with a token in the header or the cookie: what it showed, and the heads that it got. */
export function reader(url, headers) {
  const heads = [];
  const source = new EventSource(url, {
    fetch: async (input, init) => {
      const answer = await fetch(input, { ...init, headers: { ...init.headers, ...headers } });
      heads.push(answer);
      return answer;
    },
  });
  return shown(source, { heads });
}

/** What anything with the interface of the browser's EventSource shows. */
export function shown(source, more = {}) {
  const seen = { events: [], open: false, ...more, close: () => source.close() };
  source.addEventListener('open', () => (seen.open = true));
  for (const type of ['message', 'kind', 'mercure']) {
    source.addEventListener(type, ({ type, lastEventId, data }) => seen.events.push({ type, id: lastEventId, data }));
  }
  seen.opened = () => until('the stream is open', () => seen.open, { seen: () => seen.heads?.map((head) => head.status).join(' ') });
  seen.shows = (count) => until(`${count} events`, () => seen.events.length >= count, { seen: () => JSON.stringify(seen.events) });
  return seen;
}

/** Publishes with the hub's own form, as any HTTP client would; the id. */
export async function publish(hub, token, fields) {
  const answer = await fetch(hub.mercure, { method: 'POST', headers: bearer(token), body: new URLSearchParams(fields) });
  const id = (await answer.text()).trim();
  check(answer.status === 200, `publishing answered ${answer.status}: ${id}`);
  return id;
}

/** The events shown are those published, every one once, in order. */
export function checkIds(events, ids) {
  const seen = events.map(({ id }) => id).join(' ');
  check(seen === ids.join(' '), `published ${ids.join(' ')}, shown ${seen}`);
}

/** What a page's event streams were handed by the browser, whoever opened them: `events` as they come. */
export async function witness(page) {
  const seen = { events: [] };
  const session = await page.context().newCDPSession(page);
  await session.send('Network.enable');
  session.on('Network.eventSourceMessageReceived', ({ eventName, eventId, data }) => seen.events.push({ type: eventName, id: eventId, data }));
  return seen;
}

/** Waits until somebody subscribes to the topic in dialect 7: a page cannot be asked whether its streams are open. */
export async function waitSubscribed(hub, topic) {
  const token = await legacyToken('subscribe', ['*']);
  const url = `${hub.mercure}/subscriptions/${encodeURIComponent(topic)}`;
  return until('the page subscribes', async () => (await (await fetch(url, { headers: bearer(token) })).json()).subscriptions.length > 0);
}

/** How the two dialects say the same thing. */
export const DIALECTS = {
  7: {
    subscribe: (topic) => ({ topic: `${topic}/{id}` }),
    grant: (topic, payload) => legacyToken('subscribe', [`${topic}/{id}`], { payload }),
    everything: () => legacyToken('subscribe', ['*']),
    cursor: 'lastEventID',
    begins: 'last-event-id',
    cookie: 'mercureAuthorization',
  },
  8: {
    subscribe: (topic) => ({ match_urlpattern: `${topic}/:id` }),
    grant: (topic, payload) => accessToken('subscribe', [{ match: `${topic}/:id`, match_type: 'urlpattern' }], { payload }),
    everything: () => accessToken('subscribe', [{ match: '*' }]),
    cursor: 'last_event_id',
    begins: 'mercure-last-event-id',
    cookie: '__Secure-mercure_access_token',
  },
};
