// The foreign clients, what each needs to be asked for, and what each cannot do however the hub behaves.
import { join } from 'node:path';
import { Reader } from './reader.mjs';

const folder = join(import.meta.dirname, '..');
const node = (name) => [process.execPath, join(folder, 'node', `${name}.mjs`)];
const python = (name) => [join(folder, 'python/.venv/bin/python'), '-u', join(folder, 'python', `${name}_client.py`)];
const rust = (name) => [join(process.env.RUST_CLIENTS ?? join(folder, 'rust/target/debug'), name)];

function client(name, command, { query = '', primed = false } = {}) {
  return { name, query, primed, subscribe: async (url) => new Reader(command, url) };
}

/** `primed`: the client takes a cursor from a block without data. To the others a cut before their first event costs what came meanwhile. */
export const CLIENTS = [
  client('npm eventsource', node('eventsource'), { primed: true }),
  client('npm eventsource-client', node('eventsource-client')),
  // Shows an empty event for a block without data, and stops for good on a clean end.
  client('npm fetch-event-source', node('fetch-event-source'), { query: '?prime=0&end=abort' }),
  client('npm event-source-polyfill', node('event-source-polyfill')),
  // Shows an empty event for a block without data.
  client('PyPI httpx-sse', python('httpx_sse'), { query: '?prime=0' }),
  client('PyPI sseclient-py', python('sseclient_py')),
  client('PyPI aiohttp-sse-client', python('aiohttp_sse_client')),
  client('crate reqwest-eventsource', rust('reqwest-eventsource')),
  client('crate eventsource-client', rust('eventsource-client')),
];
