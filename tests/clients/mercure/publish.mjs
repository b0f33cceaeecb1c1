// npm `mercure`: the publisher of a remote hub. Arguments: hub URL, token, topic. Prints the ids that were answered.
import mercure from 'mercure';

const [, , hub, jwt, topic] = process.argv;
const { protocol, hostname, port, pathname } = new URL(hub);
const publisher = new mercure.Publisher({ protocol: protocol.slice(0, -1), host: hostname, port: Number(port), path: pathname, jwt });
const publish = async (data, options) => console.log(JSON.stringify({ id: await publisher.publish([topic], data, options) }));

await publish('1\nline: two — é 🦀');
await publish('2', { id: `urn:given:${topic}`, type: 'kind', retry: 1234 });
