// npm `@microsoft/fetch-event-source`: written for browsers, so it gets stand-ins for what it takes from `window` and `document`.
import { failed, opened, received, url } from './report.mjs';

globalThis.window = { fetch, setTimeout, clearTimeout };
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
const { fetchEventSource } = (await import('@microsoft/fetch-event-source')).default;

await fetchEventSource(url, {
  openWhenHidden: true,
  onopen: async () => opened(),
  onmessage: ({ event, id, data }) => received(event || 'message', id, data),
  onerror: (error) => failed(error),
});
failed('the client took the end of the stream for the end of everything');
