// npm `@api-platform/admin`, whole and unmodified, in Chromium: an interface of books whose rows and forms follow the hub.
//
// It knows the few documents of a Hydra API that the package asks for. The hub and the stream are real; the API is not.
import http from 'node:http';
import { join } from 'node:path';
import { build } from 'esbuild';
import { check, until } from '../harness/deadline.mjs';
import { legacyToken } from './hub.mjs';
import { checkIds, publish, stage, waitSubscribed, witness } from './stage.mjs';

const HYDRA = 'http://www.w3.org/ns/hydra/core#';
const bundled = () =>
  build({
    entryPoints: [join(import.meta.dirname, 'admin.entry.mjs')],
    bundle: true,
    write: false,
    format: 'esm',
    platform: 'browser',
    define: { 'process.env.NODE_ENV': '"production"', global: 'globalThis' },
    logLevel: 'error',
  }).then(({ outputFiles }) => outputFiles[0].contents);
let bundle;

const property = (name, range) => ({ '@id': `#Book/${name}`, '@type': 'rdf:Property', 'rdfs:label': name, 'rdfs:range': { '@id': range } });
const operation = (method, returns) => ({ '@type': 'hydra:Operation', 'hydra:method': method, 'rdfs:label': method, 'hydra:returns': { '@id': returns } });

/** What the API says about itself: one kind of thing, books, that have a title. */
const documentation = {
  '@context': { hydra: HYDRA, rdf: 'http://www.w3.org/1999/02/22-rdf-syntax-ns#', rdfs: 'http://www.w3.org/2000/01/rdf-schema#' },
  '@id': '/api/docs',
  '@type': 'hydra:ApiDocumentation',
  'hydra:title': 'Library',
  'hydra:supportedClass': [
    {
      '@id': '#Book',
      '@type': 'hydra:Class',
      'hydra:title': 'Book',
      'hydra:supportedProperty': [
        {
          '@type': 'hydra:SupportedProperty',
          'hydra:title': 'title',
          'hydra:property': property('title', 'http://www.w3.org/2001/XMLSchema#string'),
          'hydra:readable': true,
          'hydra:writeable': true,
        },
      ],
      'hydra:supportedOperation': [operation('GET', '#Book'), operation('PUT', '#Book')],
    },
    {
      '@id': '#Entrypoint',
      '@type': 'hydra:Class',
      'hydra:supportedProperty': {
        '@type': 'hydra:SupportedProperty',
        'hydra:property': {
          '@id': '#Entrypoint/books',
          '@type': 'hydra:Link',
          'rdfs:range': [{ '@id': `${HYDRA}Collection` }, { '@id': '#Book' }],
          'hydra:supportedOperation': [operation('GET', `${HYDRA}Collection`)],
        },
      },
    },
  ],
};

/** The web site of the interface and its API, which names `hub` in its `Link` field (M-7). */
class Library {
  static async start() {
    const library = new Library();
    const code = await (bundle ??= bundled());
    library.server = http.createServer((request, answer) => {
      const { pathname } = new URL(request.url, 'http://library');
      const document = library.documents[pathname];
      const links = [`<${library.url}/api/docs>; rel="${HYDRA}apiDocumentation"`, `<${library.hub}>; rel="mercure"`];
      const type = document ? 'application/ld+json' : pathname === '/admin.mjs' ? 'text/javascript' : 'text/html';
      answer.writeHead(200, { 'content-type': type, link: links.join(', ') });
      answer.end(document ? JSON.stringify(document) : type === 'text/javascript' ? code : PAGE);
    });
    await new Promise((resolve) => library.server.listen(0, '127.0.0.1', resolve));
    library.url = `http://127.0.0.1:${library.server.address().port}`;
    return library;
  }

  /** The documents of the API by their paths. */
  get documents() {
    const books = { '@id': '/api/books', '@type': 'hydra:Collection', 'hydra:member': [Library.book('from the API')], 'hydra:totalItems': 1 };
    const context = { '@vocab': `${this.url}/api/docs#`, books: { '@id': 'Entrypoint/books', '@type': '@id' } };
    const entrypoint = { '@context': context, '@id': '/api', '@type': 'Entrypoint', books: `${this.url}/api/books` };
    return { '/api': entrypoint, '/api/docs': documentation, '/api/books': books, '/api/books/1': Library.book('from the API') };
  }

  /** A book as the API answers it and as an update carries it. */
  static book(title) {
    return { '@id': '/api/books/1', '@type': 'Book', id: 1, title };
  }

  /** The topic of that book: the interface takes the address under which the API has it. */
  get topic() {
    return `${this.url}/api/books/1`;
  }

  close() {
    this.server.closeAllConnections();
    this.server.close();
  }
}

const PAGE = '<!doctype html><title>Library</title><div id="root"></div><script type="module" src="/admin.mjs"></script>';

/** Plays with the interface open at `path`, in a browser of its own, and told `mercure` by whoever set it up. */
async function open(chromium, mercure, path, play) {
  const library = await Library.start();
  try {
    return await stage(`anonymous\ncors_origins ${library.url}`, async (hub, _, proxy) => {
      library.hub = hub.behind;
      const { page } = await chromium.page('about:blank');
      const streamed = await witness(page);
      const told = encodeURIComponent(JSON.stringify(await mercure(library)));
      await page.goto(`${library.url}/?mercure=${told}#/${path}`);
      const token = await legacyToken('publish', ['*']);
      const book = (title) => JSON.stringify({ ...Library.book(title), '@context': '/api/contexts/Book' });
      const update = (title, fields = []) => publish(hub, token, [['topic', library.topic], ['data', book(title)], ...fields]);
      const played = await play({ page, proxy, streamed, update, subscribed: () => waitSubscribed(hub, library.topic) });
      await page.context().close();
      return played;
    });
  } finally {
    library.close();
  }
}

/** The list finds the hub in the API's `Link`, subscribes to its rows, and shows what is published, without what is private. */
export const adminList = (chromium) => () =>
  open(chromium, () => true, 'books', async ({ page, streamed, update, subscribed }) => {
    await page.getByRole('cell', { name: 'from the API' }).waitFor();
    await subscribed();
    await update('of others', [['private', 'on']]);
    const id = await update('from the hub');
    await page.getByRole('cell', { name: 'from the hub' }).waitFor();
    checkIds(streamed.events, [id]);
    return 'a row follows the hub found by Link';
  });

/** The form of one book, with a token that the package puts into its cookie; it comes back after a cut and misses nothing. */
export const adminForm = (chromium) => () => {
  const mercure = async (library) => ({ jwt: await legacyToken('subscribe', [library.topic]) });
  return open(chromium, mercure, `books/${encodeURIComponent('/api/books/1')}`, async ({ page, proxy, streamed, update, subscribed }) => {
    const title = page.getByRole('textbox', { name: 'Title' });
    const shows = (value) => until(`the form shows ${value}`, async () => (await title.inputValue()) === value);
    await shows('from the API');
    await subscribed();
    const on = [['private', 'on']];
    const ids = [await update('1', on)];
    await shows('1');
    proxy.refusing = true;
    proxy.reset();
    ids.push(await update('2'), await update('3', on));
    proxy.refusing = false;
    await shows('3');
    ids.push(await update('4', on));
    await shows('4');
    checkIds(streamed.events, ids);
    const cursor = proxy.requests.at(-1).headers.get('last-event-id');
    check(cursor === ids[0], `it came back with ${cursor}, expected ${ids[0]}`);
    return 'private updates by the cookie it sets, resumed after a cut';
  });
};
