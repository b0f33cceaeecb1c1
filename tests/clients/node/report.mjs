// What the programs of this folder print for the harness: one JSON object per line.

export const url = process.argv[2];

const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

export const opened = () => print({ open: true });
export const failed = (error) => print({ error: String(error?.message ?? error?.type ?? error) });
export const received = (type, id, data) => print({ type, id, data });

/** Listens on anything that has the interface of the browser's EventSource. */
export function listen(source) {
  source.addEventListener('open', opened);
  source.addEventListener('error', failed);
  for (const type of ['message', 'tidings.gap']) {
    source.addEventListener(type, (event) => received(event.type, event.lastEventId, event.data));
  }
}
