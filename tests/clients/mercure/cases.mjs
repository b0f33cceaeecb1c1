// Clients of the Mercure protocol, unmodified, against a hub: publishing, private updates by cookie and header, resuming, presence.
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { join } from 'node:path';
import { check, until } from '../harness/deadline.mjs';
import { adminForm, adminList } from './admin.mjs';
import { accessToken, legacyToken, PUBLISHER } from './hub.mjs';
import { presence, privately, resume, resumePolyfill } from './readers.mjs';
import { bearer, checkIds, finished, publish, query, reader, stage, start, waitSubscribed, witness } from './stage.mjs';

const folder = import.meta.dirname;
const python = join(folder, '.venv/bin/python');

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

/** A page with Symfony's stream element, and the cookie that Symfony makes for it: public and private streams, resumed after a cut. */
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
    return await stage(`cors_origins ${origin}`, async (hub, topic, proxy) => {
      // Cookies do not know ports: the page's site and the hub share this one.
      const grant = await legacyToken('subscribe', [topic]);
      [{ cookie: site.cookie }] = await finished(['php', join(folder, 'cookie.php'), hub.behind, origin, grant]);
      const { page } = await chromium.page('about:blank');
      const streamed = await witness(page);
      await page.goto(`${origin}/`);
      await page.evaluate((src) => {
        const element = document.createElement('turbo-mercure-stream-source');
        element.setAttribute('src', src);
        element.setAttribute('private', '');
        document.body.append(element);
      }, `${hub.behind}?${query({ topic })}`);
      await waitSubscribed(hub, topic);
      const token = await legacyToken('publish', ['*']);
      const stream = (text) => `<turbo-stream action="append" target="shown"><template><p>${text}</p></template></turbo-stream>`;
      const update = (text, fields = []) => publish(hub, token, [['topic', topic], ['data', stream(text)], ...fields]);
      const ids = [await update('public'), await update('private', [['private', 'on']])];
      const shown = () => page.evaluate(() => [...document.querySelectorAll('#shown p')].map((p) => p.textContent).join(' '));
      await until('both updates on the page', async () => (await shown()) === 'public private');
      proxy.refusing = true;
      proxy.reset();
      ids.push(await update('while'), await update('cut', [['private', 'on']]));
      proxy.refusing = false;
      await until('what came meanwhile on the page', async () => (await shown()) === 'public private while cut');
      checkIds(streamed.events, ids);
      await page.context().close();
      return 'public and private, by the cookie of Symfony, resumed after a cut';
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

/** What the runner asks for: client, scenario, and how to play it. */
export const mercureCases = (chromium) => [
  { client: 'Debian php-symfony-mercure', scenario: 'mercure publish', run: publisher(php, true) },
  { client: 'Debian php-symfony-mercure', scenario: 'mercure refused', run: refusedPublisher(php) },
  { client: 'npm mercure', scenario: 'mercure publish', run: publisher(npm, false) },
  { client: 'crate mercure', scenario: 'mercure publish', run: publisher(crate, true, { fields: false }) },
  { client: 'PyPI pymercure', scenario: 'mercure publish', run: publisher(pymercure, false) },
  { client: 'PyPI pymercure', scenario: 'mercure refused', run: refusedPublisher(pymercure) },
  { client: 'PyPI pymercure', scenario: 'mercure consume', run: consumer },
  ...[7, 8].flatMap((dialect) => [
    { client: 'npm jose, eventsource', scenario: `mercure header ${dialect}`, run: privately(dialect, 'header') },
    { client: 'npm jose, eventsource', scenario: `mercure cookie ${dialect}`, run: privately(dialect, 'cookie') },
    { client: 'npm jose, eventsource', scenario: `mercure resume ${dialect}`, run: resume(dialect) },
    { client: 'npm jose, event-source-polyfill', scenario: `mercure resume ${dialect}`, run: resumePolyfill(dialect) },
    { client: 'npm jose, eventsource', scenario: `mercure presence ${dialect}`, run: presence(dialect) },
  ]),
  { client: 'npm @symfony/ux-turbo', scenario: 'mercure turbo', run: () => turbo(chromium) },
  { client: 'npm @api-platform/admin', scenario: 'mercure list', run: adminList(chromium) },
  { client: 'npm @api-platform/admin', scenario: 'mercure form', run: adminForm(chromium) },
];
