// Clients of the Mercure protocol, unmodified, against a hub: publishing, private updates by cookie and header, resuming, presence.
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { join } from 'node:path';
import { EventSource } from 'eventsource';
import { check, until } from '../harness/deadline.mjs';
import { accessToken, legacyToken, PUBLISHER, startMercureHub } from './hub.mjs';

const folder = import.meta.dirname;
const python = join(folder, '.venv/bin/python');

/** Runs `play` with a hub and a topic of its own. */
async function stage(directives, play) {
  const hub = await startMercureHub(directives);
  try {
    return await play(hub, `https://clients.example/${Math.random().toString(36).slice(2)}`);
  } finally {
    await hub.kill();
  }
}

/** Runs a program to its end, or until `enough`; the lines of JSON that it printed. */
function start(command) {
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

async function finished(command) {
  const running = start(command);
  await until(`${command[0]} ends`, () => running.code !== undefined, { ms: 60_000 });
  check(running.code === 0, `${command[0]} ended with ${running.code}: ${running.errors.slice(-1500)}`);
  return running.lines;
}

/** npm `eventsource` with a token in the header or the cookie: what it showed, and the heads that it got. */
function reader(url, headers) {
  const seen = { events: [], heads: [], open: false };
  const source = new EventSource(url, {
    fetch: async (input, init) => {
      const answer = await fetch(input, { ...init, headers: { ...init.headers, ...headers } });
      seen.heads.push(answer);
      return answer;
    },
  });
  source.addEventListener('open', () => (seen.open = true));
  for (const type of ['message', 'kind', 'mercure']) {
    source.addEventListener(type, ({ type, lastEventId, data }) => seen.events.push({ type, id: lastEventId, data }));
  }
  seen.close = () => source.close();
  seen.opened = () => until('the stream is open', () => seen.open, { seen: () => seen.heads.map((head) => head.status).join(' ') });
  seen.shows = (count) => until(`${count} events`, () => seen.events.length >= count, { seen: () => JSON.stringify(seen.events) });
  return seen;
}

const bearer = (token) => ({ Authorization: `Bearer ${token}` });
const query = (fields) => new URLSearchParams(fields).toString();

/** Publishes with the hub's own form, as any HTTP client would. */
async function publish(hub, token, fields) {
  const answer = await fetch(hub.mercure, { method: 'POST', headers: bearer(token), body: new URLSearchParams(fields) });
  const id = (await answer.text()).trim();
  check(answer.status === 200, `publishing answered ${answer.status}: ${id}`);
  return id;
}

/** A publisher of dialect 7: what it published arrives under the ids that it was answered, private updates only where they are granted. */
const publisher = (command, privately, { fields = true } = {}) => () =>
  stage('', async (hub, topic) => {
    const granted = reader(`${hub.mercure}?${query({ topic })}`, bearer(await legacyToken('subscribe', [topic])));
    const outside = reader(`${hub.mercure}?${query({ topic })}`, bearer(await legacyToken('subscribe', [])));
    await Promise.all([granted.opened(), outside.opened()]);
    const token = await legacyToken('publish', ['*']);
    const ids = (await finished([...command, hub.mercure, token, topic])).map(({ id }) => id.trim());
    const marker = await publish(hub, token, [['topic', topic], ['data', 'marker']]);
    const all = [...ids, marker];
    await granted.shows(all.length);
    await outside.shows(all.length - (privately ? 1 : 0));
    granted.close();
    outside.close();
    check(granted.events.map(({ id }) => id).join(' ') === all.join(' '), `shown ${JSON.stringify(granted.events)}, answered ${all}`);
    const [first, second] = granted.events;
    check(first.data === '1\nline: two — é 🦀' && first.type === 'message', `first ${JSON.stringify(first)}`);
    check(!fields || (second.id === `urn:given:${topic}` && second.type === 'kind'), `second ${JSON.stringify(second)}`);
    check(outside.events.every(({ data }) => data !== 'private'), 'a private update was shown without a grant');
    return `${ids.length} updates${privately ? ', one private' : ''}`;
  });

/** The token of a stranger is refused, and the client says so. */
const refusedPublisher = (command) => () =>
  stage('', async (hub, topic) => {
    const token = await legacyToken('subscribe', ['*']);
    const running = start([...command, hub.mercure, token, topic]);
    await until('the program ends', () => running.code !== undefined, { ms: 60_000 });
    check(running.code !== 0 && running.lines.length === 0, `it did not notice: ${JSON.stringify(running.lines)}`);
    return 'noticed';
  });

async function consumer() {
  return stage('anonymous', async (hub, topic) => {
    const running = start([python, '-u', join(folder, 'consume.py'), hub.mercure, topic]);
    try {
      await until('the consumer is open', () => running.lines.length > 0, { seen: () => running.errors.slice(-500) });
      const token = await legacyToken('publish', ['*']);
      const first = await publish(hub, token, [['topic', topic], ['data', 'a\nb']]);
      await publish(hub, token, [['topic', topic], ['data', 'private'], ['private', 'on']]);
      const last = await publish(hub, token, [['topic', topic], ['data', 'c']]);
      await until('both public updates', () => running.lines.length >= 3, { seen: () => JSON.stringify(running.lines) });
      const shown = running.lines.slice(1).map(({ id, data }) => [id, data]);
      check(JSON.stringify(shown) === JSON.stringify([[first, 'a\nb'], [last, 'c']]), `shown ${JSON.stringify(shown)}`);
      return '2 updates, the private one not';
    } finally {
      running.kill();
    }
  });
}

/** Dialect 8: tokens of `jose`, private updates by header and by cookie, and resuming where the stream was left. */
const eight = (headers) => () =>
  stage('', async (hub, topic) => {
    const token = await accessToken('publish', [{ match: '*' }]);
    const grant = await accessToken('subscribe', [{ match: `${topic}/:id`, match_type: 'urlpattern' }]);
    const url = `${hub.mercure}?${query({ match_urlpattern: `${topic}/:id` })}`;
    const update = (data) => publish(hub, token, [['topic', `${topic}/1`], ['data', data], ['private', 'on']]);
    const live = reader(url, headers(grant));
    await live.opened();
    const ids = [await update('1'), await update('2'), await update('3')];
    await live.shows(3);
    live.close();
    const resumed = reader(`${url}&${query({ last_event_id: ids[0] })}`, headers(grant));
    await resumed.shows(2);
    resumed.close();
    check(live.events.map(({ id }) => id).join(' ') === ids.join(' '), `live ${JSON.stringify(live.events)}`);
    check(resumed.events.map(({ id }) => id).join(' ') === ids.slice(1).join(' '), `resumed ${JSON.stringify(resumed.events)}`);
    const begins = resumed.heads[0].headers.get('mercure-last-event-id');
    check(begins === ids[0], `Mercure-Last-Event-ID: ${begins}, expected ${ids[0]}`);
    return '3 private updates, 2 after resuming';
  });

/** Dialect 8: presence events with the payload of the token, and the API. */
async function presence() {
  return stage('', async (hub, topic) => {
    const watched = `/.well-known/mercure/subscriptions/exact/${encodeURIComponent(topic)}`;
    const watch = await accessToken('subscribe', [{ match: '*' }]);
    const watcher = reader(`${hub.mercure}?${query({ match_urlpattern: `${watched}/:subscriber` })}`, bearer(watch));
    await watcher.opened();
    const token = await accessToken('subscribe', [{ match: topic }], { payload: { user: 'Ada' } });
    const subscriber = reader(`${hub.mercure}?${query({ match: topic })}`, bearer(token));
    await subscriber.opened();
    await watcher.shows(1);
    const listed = await (await fetch(`${hub.url}${watched}`, { headers: bearer(watch) })).json();
    subscriber.close();
    await watcher.shows(2);
    watcher.close();
    const [came, left] = watcher.events.map(({ data }) => JSON.parse(data));
    check(came.active === true && left.active === false && came.id === left.id, `told ${JSON.stringify([came, left])}`);
    check(watcher.events.every(({ type }) => type === 'mercure'), `types ${watcher.events.map(({ type }) => type)}`);
    check(came.payload?.user === 'Ada' && came.match === topic, `told ${JSON.stringify(came)}`);
    check(listed.subscriptions.some(({ id }) => id === came.id), `listed ${JSON.stringify(listed)}`);
    return 'came, listed, left';
  });
}

/** A page with Symfony's stream element: public streams, and private ones by the cookie that came with the page. */
async function turbo(chromium) {
  const files = { '/': join(folder, 'ux-turbo.html') };
  const site = http.createServer(async (request, answer) => {
    const path = new URL(request.url, 'http://site').pathname;
    const type = path === '/' ? 'text/html' : 'text/javascript';
    answer.writeHead(200, { 'content-type': type, ...(path === '/' && { 'set-cookie': site.cookie }) });
    answer.end(await readFile(files[path] ?? join(folder, path)).catch(() => ''));
  });
  await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve));
  const origin = `http://127.0.0.1:${site.address().port}`;
  try {
    return await stage(`cors_origins ${origin}`, async (hub, topic) => {
      // Cookies do not know ports: the page's site and the hub share this one.
      site.cookie = `mercureAuthorization=${await legacyToken('subscribe', [topic])}; Path=/.well-known/mercure; HttpOnly; SameSite=Strict`;
      const { page } = await chromium.page(`${origin}/`);
      await page.evaluate((src) => {
        const element = document.createElement('turbo-mercure-stream-source');
        element.setAttribute('src', src);
        element.setAttribute('private', '');
        document.body.append(element);
      }, `${hub.mercure}?${query({ topic })}`);
      await until('the element is connected', () => page.evaluate(() => document.querySelector('[connected]') !== null));
      const token = await legacyToken('publish', ['*']);
      const stream = (text) => `<turbo-stream action="append" target="shown"><template><p>${text}</p></template></turbo-stream>`;
      await publish(hub, token, [['topic', topic], ['data', stream('public')]]);
      await publish(hub, token, [['topic', topic], ['data', stream('private')], ['private', 'on']]);
      const shown = () => page.evaluate(() => [...document.querySelectorAll('#shown p')].map((p) => p.textContent).join(' '));
      await until('both updates on the page', async () => (await shown()) === 'public private');
      await page.context().close();
      return 'public and private, by cookie';
    });
  } finally {
    site.closeAllConnections();
    site.close();
  }
}

const php = ['php', join(folder, 'publish.php')];
const npm = [process.execPath, join(folder, 'publish.mjs')];
const pymercure = [python, '-u', join(folder, 'publish.py')];
// It makes its own token, and cannot say an id or a type.
const crate = [join(process.env.RUST_MERCURE_CLIENT ?? join(folder, 'rust/target/debug'), 'tidings-mercure-rust-client'), PUBLISHER];
const cookie = (token) => ({ Cookie: `__Secure-mercure_access_token=${token}` });

/** What the runner asks for: client, scenario, and how to play it. */
export const mercureCases = (chromium) => [
  { client: 'Debian php-symfony-mercure', scenario: 'mercure publish', run: publisher(php, true) },
  { client: 'Debian php-symfony-mercure', scenario: 'mercure refused', run: refusedPublisher(php) },
  { client: 'npm mercure', scenario: 'mercure publish', run: publisher(npm, false) },
  { client: 'crate mercure', scenario: 'mercure publish', run: publisher(crate, true, { fields: false }) },
  { client: 'PyPI pymercure', scenario: 'mercure publish', run: publisher(pymercure, false) },
  { client: 'PyPI pymercure', scenario: 'mercure refused', run: refusedPublisher(pymercure) },
  { client: 'PyPI pymercure', scenario: 'mercure consume', run: consumer },
  { client: 'npm jose, eventsource', scenario: 'mercure header', run: eight(bearer) },
  { client: 'npm jose, eventsource', scenario: 'mercure cookie', run: eight(cookie) },
  { client: 'npm jose, eventsource', scenario: 'mercure presence', run: presence },
  { client: 'npm @symfony/ux-turbo', scenario: 'mercure turbo', run: () => turbo(chromium) },
];
